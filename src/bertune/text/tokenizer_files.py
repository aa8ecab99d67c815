"""The files of a tokenizer: tokenizer.json and tokenizer_config.json, or files that transformers converts."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Rust
from tokenizers import __version__ as tokenizers_version

from bertune.console import quiet_transformers
from bertune.errors import ArtifactError, ConfigError, MissingExtra, listed
from bertune.files import read_json_object
from bertune.text.damaged_files import describe_damage
from bertune.text.python_tokenizer import PythonBackend
from bertune.types import JSON

LOCAL_SETTINGS = {"is_local", "local_files_only", "name_or_path"}
"""Settings that transformers writes and that say nothing of the tokenizer."""
SPECIAL_TOKENS = ("UNK", "SEP", "PAD", "CLS", "MASK")
"""BERT's special tokens."""
_VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm")


def load_backend(folder: Path) -> tuple[Rust | PythonBackend, JSON]:
    """Read the tokenizer of a folder, and its settings.

    Raises:
        ArtifactError: bertune wrote the folder, and a file is missing or damaged.
        ConfigError: there is no vocabulary, or transformers cannot read it.
        MissingExtra: the package that reads it is not installed.
    """
    by_bertune = (folder / "bertune.json").is_file()
    if by_bertune and (_has_no_python_files(folder) or (folder / "tokenizer.json").is_file()):
        return _read_saved(folder)
    check_tokenizer_files(folder)
    if not any(path for pattern in _VOCABULARY_FILES for path in folder.glob(pattern)):
        # transformers would make up a tokenizer with an empty vocabulary
        raise ConfigError(
            f"model: no tokenizer can be read from {str(folder)!r}: it holds none of "
            f"{', '.join(_VOCABULARY_FILES)}"
        )
    return _read_bert_tokenizer(folder) or _convert_tokenizer(folder)


def load_rust_tokenizer(folder: Path) -> tuple[Rust, JSON]:
    """Read a tokenizer of the `tokenizers` library; see `load_backend`.

    Raises:
        ConfigError: the folder has another one.
    """
    backend, settings = load_backend(folder)
    if isinstance(backend, PythonBackend):
        raise ConfigError(
            f"model: {backend.class_name} in {str(folder)!r} has no fast form, which is needed here"
        )
    return backend, settings


def check_tokenizer_files(folder: Path) -> None:
    """Refuse pointers, web pages and the like in the place of a tokenizer's files.

    Raises:
        ConfigError: a file is not what its name says.
    """
    for pattern in (*_VOCABULARY_FILES, "tokenizer_config.json"):
        for path in sorted(folder.glob(pattern)):
            if damage := describe_damage(path):
                raise ConfigError(
                    f"model: no tokenizer can be read from {str(folder)!r}: {path.name} {damage}"
                )


def _has_no_python_files(folder: Path) -> bool:
    """Tell whether a folder of bertune lacks the files of a tokenizer in Python, too."""
    return not any(path for pattern in _VOCABULARY_FILES[1:] for path in folder.glob(pattern))


def _read_saved(folder: Path) -> tuple[Rust, JSON]:
    """Read the tokenizer of a folder of bertune, whose tokenizer.json is complete."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError) as error:
        damage = next((f": {p.name} {d}" for p in folder.glob("tok*.json") if (d := describe_damage(p))), "")
        raise ArtifactError(f"{folder}: tokenizer files missing or damaged{damage or f': {error}'}") from None
    try:
        return Rust.from_str(text), settings
    except Exception as error:  # tokenizers raises nothing more special
        raise ArtifactError(f"{folder}: tokenizer.json {_other_version(error)}") from None


def _other_version(error: Exception) -> str:
    return (
        f"cannot be read by tokenizers {tokenizers_version} ({str(error).splitlines()[0]}): another version "
        "has written it, or it is damaged; pip install -U tokenizers transformers, or save it again with "
        "that version"
    )


def _convert_tokenizer(folder: Path) -> tuple[Rust | PythonBackend, JSON]:
    """Let transformers read the tokenizer.

    tokenizer_config.json may overrule tokenizer.json (`do_lower_case`, for example), by rules of
    transformers.
    """
    begin = f"model: no tokenizer can be read from {str(folder)!r}: "
    has_json = (folder / "tokenizer.json").is_file()
    if has_json:
        try:
            Rust.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise ConfigError(f"{begin}tokenizer.json {_other_version(error)}") from None
    elif "AutoTokenizer" in (read_json_object(folder / "tokenizer_config.json").get("auto_map") or {}):
        raise ConfigError(
            f"{begin}Python code of the folder makes it (auto_map in tokenizer_config.json), which bertune "
            "does not run; where you trust it, save it once by save_pretrained, so that there is a "
            "tokenizer.json"
        )
    elif _sentencepiece_files(folder) and importlib.util.find_spec("sentencepiece") is None:
        file = _sentencepiece_files(folder)[0].name
        raise MissingExtra("sentencepiece", "sentencepiece", f"the tokenizer in {file} of {str(folder)!r}")
    with quiet_transformers():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            _check_words(tokenizer, folder)
            if not getattr(tokenizer, "is_fast", False):
                files = _own_files(folder, tokenizer)
                return PythonBackend(files), json.loads(files["tokenizer_config.json"])
            files = _files_of(tokenizer)
            settings = json.loads(files["tokenizer_config.json"])
            return Rust.from_str(files["tokenizer.json"].decode()), _without_local(settings)
        except ConfigError:
            raise
        except Exception as error:  # tokenizers of many authors
            raise ConfigError(f"{begin}{_reason(error)}") from None


def _sentencepiece_files(folder: Path) -> list[Path]:
    return [path for pattern in ("*.model", "*.spm") for path in sorted(folder.glob(pattern))]


def _own_files(folder: Path, tokenizer: Any) -> dict[str, bytes]:
    """Return the files of a tokenizer in Python as they are: BERTweet's changes when it is saved."""
    names = {*tokenizer.vocab_files_names.values(), "special_tokens_map.json", "added_tokens.json"}
    files = {name: (folder / name).read_bytes() for name in sorted(names) if (folder / name).is_file()}
    settings = {
        **_without_local(read_json_object(folder / "tokenizer_config.json")),
        "tokenizer_class": type(tokenizer).__name__,
    }
    return {**files, "tokenizer_config.json": json.dumps(settings, ensure_ascii=False).encode()}


def _files_of(tokenizer: Any) -> dict[str, bytes]:
    """Return the files that transformers writes of a tokenizer, by name."""
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save_pretrained(saved)  # the one public way to its tokenizer.json
        return {path.name: path.read_bytes() for path in Path(saved).iterdir() if path.is_file()}


def _check_words(tokenizer: Any, folder: Path) -> None:
    """Refuse a tokenizer without words, which transformers makes up where the files are another class's.

    The same for one that leaves out a step of its normalization, since a package is missing.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        names = sorted(path.name for pattern in _VOCABULARY_FILES for path in folder.glob(pattern))
        raise ConfigError(
            f"model: no tokenizer can be read from {str(folder)!r}: transformers makes a "
            f"{type(tokenizer).__name__} without words of {listed(names)}; tokenizer_class in "
            "tokenizer_config.json must name the class that these files are for"
        )
    if getattr(tokenizer, "normalization", False) and getattr(tokenizer, "demojizer", True) is None:
        raise ConfigError(
            f"model: the {type(tokenizer).__name__} of {str(folder)!r} turns emojis into words by the "
            "package emoji, which is not installed: pip install emoji==0.6.0"
        )


def _reason(error: Exception) -> str:
    """Say what transformers has raised; a package that it misses is advice enough."""
    if isinstance(error, ImportError) and error.name:
        return f"it needs the package {error.name}: pip install {error.name}"
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


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
    try:
        return Rust.from_str(text), _without_local(settings)
    except Exception:  # another version of tokenizers
        return None


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
