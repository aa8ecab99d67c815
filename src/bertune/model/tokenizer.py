"""Texts to token ids, with the `tokenizers` library (Rust) underneath."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Rust

from bertune.config import DataConfig
from bertune.errors import ArtifactError, ConfigError
from bertune.types import JSON, Piece

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm")
"""Files that hold a vocabulary."""


class Tokenizer:
    """Turns texts and pairs into ids; knows what it cut."""

    def __init__(self, rust: Rust, settings: JSON, max_length: int, truncation: str = "longest_first") -> None:
        self.max_length = max_length
        self.truncation = truncation
        self._settings = settings  # what transformers keeps in tokenizer_config.json
        rust.no_padding()
        rust.no_truncation()
        self._whole = rust
        self._cutters: dict[str, Rust] = {}

    @property
    def unknown_id(self) -> int | None:
        """Return the id of the unknown token."""
        model = json.loads(self._whole.to_str())["model"]
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        token = model.get("unk_token")
        return None if token is None else self._whole.token_to_id(token)

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Piece]:
        """Turn texts (1-tuples) or pairs (2-tuples) into pieces of at most `max_length` tokens.

        A pair of which the text that may not be cut alone is too long is cut from the longer end instead.
        """
        items: list[Any] = [t[0] if len(t) == 1 else t for t in texts]
        pieces = []
        for item, whole in zip(items, self._whole.encode_batch(items), strict=True):
            length = len(whole.ids)
            if length <= self.max_length:
                pieces.append(Piece(whole.ids, whole.type_ids))
                continue
            kept = self._cutter(self._strategy(item, whole)).encode(*(item if isinstance(item, tuple) else (item,)))
            pieces.append(Piece(kept.ids, kept.type_ids, cut=length - len(kept.ids)))
        return pieces

    def _strategy(self, item: Any, whole: Any) -> str:
        if self.truncation == "longest_first" or not isinstance(item, tuple):
            return "longest_first"
        kept_side = 1 if self.truncation == "only_first" else 0
        fixed = sum(side != 1 - kept_side for side in whole.sequence_ids)  # the other text and the special tokens
        return self.truncation if fixed < self.max_length else "longest_first"

    def _cutter(self, strategy: str) -> Rust:
        if strategy not in self._cutters:
            cutter = Rust.from_str(self._whole.to_str())
            cutter.enable_truncation(self.max_length, strategy=strategy, direction=self._settings.get("truncation_side", "right"))
            self._cutters[strategy] = cutter
        return self._cutters[strategy]

    @property
    def begins_with_special(self) -> bool:
        """Tell whether a special token, [CLS] or <s>, stands before every text."""
        return bool(self._whole.encode("a").special_tokens_mask[:1] == [1])

    @property
    def vocabulary_size(self) -> int:
        """Return the number of ids, special and added tokens included."""
        return int(self._whole.get_vocab_size(with_added_tokens=True))

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the word piece of each id."""
        return [self._whole.id_to_token(int(i)) or "?" for i in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Return readable text, special tokens included."""
        return str(self._whole.decode([int(i) for i in ids], skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write the two files that transformers' AutoTokenizer reads."""
        (folder / "tokenizer.json").write_text(self._whole.to_str(), encoding="utf-8")
        settings = {**self._settings, "model_max_length": self.max_length}
        text = json.dumps(settings, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def load_tokenizer(folder: Path, longest: int, data: DataConfig) -> Tokenizer:
    """Read the tokenizer of a model folder.

    Args:
        folder: holds tokenizer.json, or vocab.txt, or what else transformers can convert.
        longest: most positions the encoder has.
        data: its `max_length` and `truncation` count.

    Raises:
        ConfigError: no tokenizer can be read, or `data.max_length` is more than the encoder has.
    """
    if data.max_length is not None and data.max_length > longest:
        raise ConfigError(f"data.max_length: {data.max_length} is more than the {longest} positions of this encoder")
    rust, settings = _read(folder)
    return Tokenizer(rust, settings, data.max_length or min(longest, 512), data.truncation)


def _read(folder: Path) -> tuple[Rust, JSON]:
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
        raise ConfigError(f"model: no tokenizer can be read from {str(folder)!r}: it holds none of {', '.join(_VOCABULARIES)}")
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
        raise ConfigError(f"model: no tokenizer can be read from {str(folder)!r}: {str(error).splitlines()[0]}") from None
    return rust, {k: v for k, v in settings.items() if k not in {"is_local", "local_files_only", "name_or_path"}}
