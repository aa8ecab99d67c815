"""Folders to tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from tokenizers import Tokenizer as Rust

from bertune.config.schema import DataConfig
from bertune.errors import ConfigError
from bertune.text.pinyin_tokenizer import PinyinTokenizer, load_pinyin_tokenizer
from bertune.text.python_tokenizer import PythonBackend, PythonTokenizer
from bertune.text.tokenizer import Tokenizer
from bertune.text.tokenizer_files import load_backend

TokenizerKind = Literal["plain", "pinyin"]
"""Token ids alone; or token ids and a syllable for each token, for ChineseBERT."""
DEFAULT_MAX_LENGTH = 512
"""The longest input where `data.max_length` is not set and the encoder has more positions."""


def load_tokenizer(
    folder: Path, max_positions: int, data: DataConfig, kind: TokenizerKind = "plain"
) -> Tokenizer:
    """Read the tokenizer of a model folder.

    Args:
        folder: holds tokenizer.json, or vocab.txt, or another file that transformers can convert.
        max_positions: how many tokens a row of the encoder may have.
        data: its `max_length` and `truncation` count.
        kind: what the encoder reads; `bertune.encoders.pretrained` knows it from the architecture.

    Raises:
        ConfigError: no tokenizer can be read, or `data.max_length` is more than the encoder has positions.
        ArtifactError: bertune wrote the folder, and its tokenizer files are missing or damaged.
    """
    if data.max_length is not None and data.max_length > max_positions:
        raise ConfigError(
            f"data.max_length: {data.max_length} is more than the {max_positions} positions of this encoder"
        )
    max_length = data.max_length or min(max_positions, DEFAULT_MAX_LENGTH)
    if kind == "pinyin":
        rust, settings, vocab = load_pinyin_tokenizer(folder)
        return PinyinTokenizer(rust, settings, max_length, data.truncation, vocab)
    backend, settings = load_backend(folder)
    kind_of_tokenizer = PythonTokenizer if isinstance(backend, PythonBackend) else Tokenizer
    return kind_of_tokenizer(cast(Rust, backend), settings, max_length, data.truncation)
