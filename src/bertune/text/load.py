"""Pretrained folders to tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer as Rust

from bertune.config.schema import DataConfig
from bertune.encoders.checkpoint_files import is_chinesebert
from bertune.errors import ArtifactError, ConfigError
from bertune.text.tokenizer import LOCAL_SETTINGS, Tokenizer
from bertune.types import JSON

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm")
"""Files that hold a vocabulary."""


def load_tokenizer(folder: Path, max_positions: int, data: DataConfig) -> Tokenizer:
    """Read the tokenizer of a model folder.

    Args:
        folder: holds tokenizer.json, or vocab.txt, or what else transformers can convert.
        max_positions: most positions the encoder has.
        data: its `max_length` and `truncation` count.

    Raises:
        ConfigError: no tokenizer can be read, or `data.max_length` is more than the encoder has.
    """
    if data.max_length is not None and data.max_length > max_positions:
        raise ConfigError(
            f"data.max_length: {data.max_length} is more than the {max_positions} positions of this encoder"
        )
    max_length = data.max_length or min(max_positions, 512)
    if is_chinesebert(folder):
        from bertune.text.pinyin_tokenizer import PinyinTokenizer, load_pinyin_tokenizer

        rust, settings, spelling = load_pinyin_tokenizer(folder)
        return PinyinTokenizer(rust, settings, max_length, data.truncation, spelling)
    rust, settings = load_rust_tokenizer(folder)
    return Tokenizer(rust, settings, max_length, data.truncation)


def load_rust_tokenizer(folder: Path) -> tuple[Rust, JSON]:
    """Read the tokenizer of a folder, and its settings.

    Raises:
        ArtifactError, ConfigError: it cannot be read.
    """
    if (folder / "bertune.json").is_file():  # we wrote it, so tokenizer.json is all there is to it
        try:
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            text = (folder / "tokenizer.json").read_text(encoding="utf-8")
            json.loads(text)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{folder}: tokenizer files missing or damaged: {error}") from None
        return Rust.from_str(text), settings
    if not any(path for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        # transformers would make up a tokenizer with an empty vocabulary
        raise ConfigError(
            f"model: no tokenizer can be read from {str(folder)!r}: it holds none of {', '.join(_VOCABULARIES)}"
        )
    plain = _plain_bert(folder)
    if plain is not None:
        return plain
    # Elsewhere tokenizer_config.json may overrule tokenizer.json (do_lower_case, say), by rules that are transformers' own.
    import tempfile

    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        with tempfile.TemporaryDirectory() as place:
            found.save_pretrained(place)  # the one public way to its tokenizer.json
            settings = json.loads((Path(place) / "tokenizer_config.json").read_text(encoding="utf-8"))
            rust = Rust.from_file(str(Path(place) / "tokenizer.json"))
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"model: no tokenizer can be read from {str(folder)!r}: {str(error).splitlines()[0]}"
        ) from None
    return rust, {k: v for k, v in settings.items() if k not in LOCAL_SETTINGS}


def _plain_bert(folder: Path) -> tuple[Rust, JSON] | None:
    """Read BERT's tokenizer where its two files agree, as nearly always, so that transformers need not be imported for its rules.

    Source: `BertTokenizer` of transformers 5, which makes its tokenizer from these settings.
    """
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        made = json.loads(text)
        if settings.get("tokenizer_class") not in {"BertTokenizer", "BertTokenizerFast"}:
            return None
        vocabulary = made["model"].pop("vocab")
        special = {
            name: settings.get(f"{name.lower()}_token", f"[{name}]")
            for name in ("UNK", "SEP", "PAD", "CLS", "MASK")
        }
        found = {name: made[name] for name in ("normalizer", "pre_tokenizer", "post_processor", "model")}
        same = found == bert_tokenizer_parts(settings, special, vocabulary)
        same_tokens = {t["content"]: t["id"] for t in made["added_tokens"]} == {
            t: vocabulary[t] for t in special.values()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # transformers' message says more
    if (
        not same
        or not same_tokens
        or settings.keys() & {"added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"}
    ):
        return None
    return Rust.from_str(text), {k: v for k, v in settings.items() if k not in LOCAL_SETTINGS}


def bert_tokenizer_parts(settings: JSON, special: dict[str, str], vocabulary: dict[str, int]) -> JSON:
    """Return the parts of tokenizer.json that BERT's settings stand for."""

    def token(name: str, kind: int) -> JSON:
        return {"SpecialToken": {"id": special[name], "type_id": kind}}

    def text(name: str, kind: int) -> JSON:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [token("CLS", 0), text("A", 0), token("SEP", 0)]
    around = {
        special[n]: {"id": special[n], "ids": [vocabulary[special[n]]], "tokens": [special[n]]}
        for n in ("CLS", "SEP")
    }
    return {
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
            "strip_accents": settings.get("strip_accents"), "lowercase": settings.get("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": [*single, text("B", 1), token("SEP", 1)], "special_tokens": around,
        },
        "model": {
            "type": "WordPiece", "unk_token": special["UNK"], "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        },
    }  # fmt: skip
