"""Tokenizers of transformers that have no fast form: PhoBERT, BERTweet, Japanese BERT.

`PythonBackend` gives such a tokenizer the few methods of the `tokenizers` library that `Tokenizer` uses, so
words, windows, pairs and truncation are the same code for both. It is slower, and a note says so.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bertune.console import quiet_transformers
from bertune.errors import ConfigError
from bertune.text.tokenizer import Tokenizer
from bertune.types import JSON

_Input = str | tuple[str, ...]
_NOT_OF_THE_IDS = {"model_max_length", "is_local", "local_files_only", "name_or_path"}
"""Settings that do not change which ids a text has."""


@dataclass(frozen=True)
class PythonEncoding:
    """The tokens of an input, with the names that the `tokenizers` library gives their parts."""

    ids: list[int]
    type_ids: list[int]
    special_tokens_mask: list[int]
    sequence_ids: list[int | None]


class PythonBackend:
    """A tokenizer of transformers written in Python, behind the methods of the `tokenizers` library.

    Args:
        files: the files that transformers reads it from, by name.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        from transformers import AutoTokenizer

        self.files = files
        self._truncation: JSON = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            with quiet_transformers():
                self._hf = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
        self._hf.model_max_length = int(1e30)  # bertune truncates, and says so

    def __reduce__(self) -> Any:
        """Be built from the files again in another process."""
        return _rebuild, (self.files, self._truncation, self._hf.truncation_side)

    @property
    def class_name(self) -> str:
        """Return the name of the class of transformers."""
        return type(self._hf).__name__

    def copy(self) -> PythonBackend:
        """Return another one of the same files."""
        return PythonBackend(self.files)

    def no_padding(self) -> None:
        """Do nothing: it never pads."""

    def no_truncation(self) -> None:
        """Give inputs of any length."""
        self._truncation = {}

    def enable_truncation(self, max_length: int, *, strategy: str, direction: str) -> None:
        """Cut inputs to `max_length` tokens."""
        self._hf.truncation_side = direction
        self._truncation = {"truncation": strategy, "max_length": max_length}

    def encode(
        self, text: str, pair: str | None = None, *, add_special_tokens: bool = True
    ) -> PythonEncoding:
        """Encode a text or a pair."""
        with quiet_transformers():
            found = self._hf(
                text,
                pair,
                add_special_tokens=add_special_tokens,
                return_token_type_ids=True,
                return_special_tokens_mask=True,
                verbose=False,
                **self._truncation,
            )
        ids = list(found["input_ids"])
        types = list(found.get("token_type_ids") or [0] * len(ids))
        special = list(found.get("special_tokens_mask") or [0] * len(ids))
        if not add_special_tokens:
            special = [0] * len(ids)
        sequences = self._sequences(text, special, has_pair=pair is not None)
        return PythonEncoding(ids, types, special, sequences)

    def _sequences(self, text: str, special: list[int], *, has_pair: bool) -> list[int | None]:
        """Return 0 for tokens of the first text, 1 for those of the second, None for special ones."""
        rest = len(self._hf.tokenize(text)) if has_pair and not self._truncation else len(special)
        sequences: list[int | None] = []
        for is_special in special:
            sequences.append(None if is_special else int(rest <= 0))
            rest -= not is_special
        return sequences

    def encode_batch(
        self, items: Sequence[_Input], *, add_special_tokens: bool = True
    ) -> list[PythonEncoding]:
        """Encode texts and pairs."""
        return [
            self.encode(*((item,) if isinstance(item, str) else item), add_special_tokens=add_special_tokens)
            for item in items
        ]

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token; None if it is unknown."""
        return self.get_vocab().get(token)

    def id_to_token(self, number: int) -> str | None:
        """Return the token of an id."""
        token = self._hf.convert_ids_to_tokens(number)
        return None if token is None else str(token)

    def get_vocab(self, *, with_added_tokens: bool = True) -> dict[str, int]:
        """Return the ids of all tokens."""
        return self._vocabulary

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return dict(self._hf.get_vocab())

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """Return the tokens that are no part of the model's vocabulary, by id."""
        return dict(self._hf.added_tokens_decoder)

    def use_mask_token(self, token: str) -> None:
        """Let a token of the vocabulary stand for hidden ones."""
        self._hf.add_special_tokens({"mask_token": token})
        settings = {**json.loads(self.files["tokenizer_config.json"]), "mask_token": token}
        content = json.dumps(settings, ensure_ascii=False).encode()
        self.files = {**self.files, "tokenizer_config.json": content}

    def special_tokens(self) -> dict[str, str]:
        """Return the special tokens by their names, such as mask_token."""
        return {name: str(token) for name, token in self._hf.special_tokens_map.items() if token}

    def add_special_tokens(self, tokens: Sequence[Any]) -> None:
        """Keep tokens whole."""
        self._hf.add_tokens([str(token) for token in tokens], special_tokens=True)

    def get_vocab_size(self, *, with_added_tokens: bool = True) -> int:
        """Return the number of ids."""
        return len(self._vocabulary)

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return readable text."""
        return str(self._hf.decode(ids, skip_special_tokens=skip_special_tokens))

    def to_str(self) -> str:
        """Return what determines the ids, as JSON."""
        settings = json.loads(self.files["tokenizer_config.json"])
        contents = {name: content for name, content in self.files.items() if name != "tokenizer_config.json"}
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
        settings = {name: value for name, value in sorted(settings.items()) if name not in _NOT_OF_THE_IDS}
        model = {"type": self.class_name, "unk_token": str(self._hf.unk_token)}
        return json.dumps({"model": model, "files": hashes, "settings": settings}, default=str)


def _rebuild(files: dict[str, bytes], truncation: JSON, side: str) -> PythonBackend:
    backend = PythonBackend(files)
    if truncation:
        backend.enable_truncation(truncation["max_length"], strategy=truncation["truncation"], direction=side)
    return backend


class PythonTokenizer(Tokenizer):
    """Turns texts and pairs into ids with a tokenizer of transformers that is written in Python."""

    _rust: Any

    @property
    def notes(self) -> list[str]:
        """Return what a user should know."""
        return [f"{self._rust.class_name} has no fast form, so texts are tokenized by Python: this is slower"]

    def use_mask_token(self, token: str) -> None:
        """Let a token of the vocabulary stand for hidden ones; see `Tokenizer.use_mask_token`."""
        self._rust.use_mask_token(token)
        self._settings = {**self._settings, "mask_token": token}

    def token_spans(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Refuse: tokenizers in Python do not say which characters a token stands for."""
        raise ConfigError(
            f"model: {self._rust.class_name} has no fast form and does not say which characters its tokens "
            "stand for, so the words of a segmenter cannot be found in them; leave the segmenter out"
        )

    def _named_tokens(self) -> dict[str, str]:
        return dict(self._rust.special_tokens())

    def _copy_rust(self) -> Any:
        return self._rust.copy()

    def save(self, folder: Path) -> None:
        """Write the files that transformers' AutoTokenizer reads."""
        for name, content in self._rust.files.items():
            (folder / name).write_bytes(content)
        settings = {**self._settings, "model_max_length": self.max_length}
        text = json.dumps(settings, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
