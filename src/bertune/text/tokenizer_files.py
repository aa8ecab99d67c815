"""The files of a tokenizer: tokenizer.json and tokenizer_config.json, or files that transformers converts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tokenizers import Tokenizer as Rust

from bertune.errors import ArtifactError, ConfigError
from bertune.types import JSON

LOCAL_SETTINGS = {"is_local", "local_files_only", "name_or_path"}
"""Settings that transformers writes and that say nothing of the tokenizer."""
SPECIAL_TOKENS = ("UNK", "SEP", "PAD", "CLS", "MASK")
"""BERT's special tokens."""
_VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm")


def load_rust_tokenizer(folder: Path) -> tuple[Rust, JSON]:
    """Read the tokenizer of a folder, and its settings.

    Raises:
        ArtifactError: bertune wrote the folder, and a file is missing or damaged.
        ConfigError: there is no vocabulary, or transformers cannot read it.
    """
    if (folder / "bertune.json").is_file():  # bertune wrote the folder, so tokenizer.json is complete
        try:
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            text = (folder / "tokenizer.json").read_text(encoding="utf-8")
            json.loads(text)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{folder}: tokenizer files missing or damaged: {error}") from None
        return Rust.from_str(text), settings
    if not any(path for pattern in _VOCABULARY_FILES for path in folder.glob(pattern)):
        # transformers would make up a tokenizer with an empty vocabulary
        raise ConfigError(
            f"model: no tokenizer can be read from {str(folder)!r}: it holds none of "
            f"{', '.join(_VOCABULARY_FILES)}"
        )
    return _read_bert_tokenizer(folder) or _convert_tokenizer(folder)


def _convert_tokenizer(folder: Path) -> tuple[Rust, JSON]:
    """Let transformers read the tokenizer.

    tokenizer_config.json may overrule tokenizer.json (`do_lower_case`, for example), by rules of
    transformers.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        with tempfile.TemporaryDirectory() as saved:
            tokenizer.save_pretrained(saved)  # the one public way to its tokenizer.json
            settings = json.loads((Path(saved) / "tokenizer_config.json").read_text(encoding="utf-8"))
            rust = Rust.from_file(str(Path(saved) / "tokenizer.json"))
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"model: no tokenizer can be read from {str(folder)!r}: {str(error).splitlines()[0]}"
        ) from None
    return rust, _without_local(settings)


def _without_local(settings: JSON) -> JSON:
    return {name: value for name, value in settings.items() if name not in LOCAL_SETTINGS}


def _read_bert_tokenizer(folder: Path) -> tuple[Rust, JSON] | None:
    """Read BERT's tokenizer where its two files agree, as they nearly always do; None elsewhere.

    This saves the import of transformers. Source: `BertTokenizer` of transformers 5, which makes its
    tokenizer from these settings.
    """
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        written = json.loads(text)
        if settings.get("tokenizer_class") not in {"BertTokenizer", "BertTokenizerFast"}:
            return None
        vocabulary = written["model"].pop("vocab")
        special = {name: settings.get(f"{name.lower()}_token", f"[{name}]") for name in SPECIAL_TOKENS}
        parts = {name: written[name] for name in ("normalizer", "pre_tokenizer", "post_processor", "model")}
        added = {token["content"]: token["id"] for token in written["added_tokens"]}
        agrees = parts == bert_tokenizer_parts(settings, special, vocabulary) and added == {
            token: vocabulary[token] for token in special.values()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # transformers' message says more
    more_tokens = {"added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"}
    if not agrees or settings.keys() & more_tokens:
        return None
    return Rust.from_str(text), _without_local(settings)


def bert_tokenizer_parts(settings: JSON, special: dict[str, str], vocabulary: dict[str, int]) -> JSON:
    """Return the parts of tokenizer.json that BERT's settings stand for.

    Args:
        settings: tokenizer_config.json.
        special: the special tokens by the names of `SPECIAL_TOKENS`.
        vocabulary: token to id.
    """

    def token(name: str, segment: int) -> JSON:
        return {"SpecialToken": {"id": special[name], "type_id": segment}}

    def text(name: str, segment: int) -> JSON:
        return {"Sequence": {"id": name, "type_id": segment}}

    single = [token("CLS", 0), text("A", 0), token("SEP", 0)]
    pair = [*single, text("B", 1), token("SEP", 1)]
    around = {
        token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]}
        for token in (special["CLS"], special["SEP"])
    }
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
            "strip_accents": settings.get("strip_accents"),
            "lowercase": settings.get("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": around,
        },
        "model": {
            "type": "WordPiece",
            "unk_token": special["UNK"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    }
