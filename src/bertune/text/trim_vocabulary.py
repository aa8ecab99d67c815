"""A tokenizer's vocabulary cut to the pieces that some texts use: tokenizer.json as data.

Why nothing becomes unknown that was known:

- WordPiece takes the longest piece that fits, again and again. A word is unknown where no piece fits. Every
  single character, at the beginning of a word and inside it, stays; so where a longer piece has gone, a
  shorter one fits, down to single characters.
- Unigram takes the most likely pieces of all that spell a text. An unknown token stands for a character that
  is no piece by itself, and all pieces of one character stay.
- A piece with a character that is no piece by itself at its place is kept too, so that it can be spelled.

A text whose pieces are all kept keeps its tokens: the longest piece that fits is still the longest, and the
most likely pieces are still the most likely. The score of an unknown token depends on the lowest score of all
pieces, so the piece with that score stays.
"""

from __future__ import annotations

import copy
import itertools
import json
import string
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertune.errors import ConfigError, listed
from bertune.types import JSON

IntArray = npt.NDArray[np.int64]

CONTROL_NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""Tokens that stay although no file calls them special: a tokenizer may leave out those it never adds."""
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""The characters that BertNormalizer puts blanks around. Source: `is_chinese_char` of tokenizers."""


@dataclass(frozen=True)
class TrimmedVocabulary:
    """What is left of a vocabulary.

    Attributes:
        old_ids: (V,) the id that each token had before; its place is the id that it has now.
        content: tokenizer.json.
        num_before: how many tokens there were.
        num_special: special and added tokens.
        num_base: pieces that stay so that nothing becomes unknown.
        num_used: other pieces that the texts use, and that stay.
        num_filled: further pieces, the first of the vocabulary, where the texts use fewer than have room.
        num_dropped_used: pieces that the texts use, and that go.
    """

    old_ids: IntArray
    content: JSON
    num_before: int
    num_special: int
    num_base: int
    num_used: int
    num_filled: int
    num_dropped_used: int

    def new_ids(self) -> dict[int, int]:
        """Return the id that each kept token has now, by the id that it had."""
        return {int(old): new for new, old in enumerate(self.old_ids)}

    def tokens(self) -> list[str]:
        """Return all tokens in the order of their ids."""
        pieces = _pieces(self.content)
        extra = {token["id"]: token["content"] for token in self.content["added_tokens"]}
        return [pieces.get(number, extra.get(number, "")) for number in range(len(self.old_ids))]


def check_trimmable(content: JSON, name: str) -> None:
    """Refuse a tokenizer whose vocabulary cannot be cut.

    Args:
        content: tokenizer.json.
        name: what messages call it.

    Raises:
        ConfigError: it is neither WordPiece nor Unigram.
    """
    kind = content["model"].get("type")
    if kind in {"WordPiece", "Unigram"}:
        return
    reason = (
        "its pieces are made by merges of two others, so none can go without those that are made of it"
        if kind == "BPE"
        else "its words have no smaller pieces, so each that goes becomes unknown"
    )
    raise ConfigError(
        f"model: the tokenizer of {name!r} is {kind}: {reason}; trim cuts WordPiece (BERT) and Unigram "
        "(XLM-R, ALBERT) only"
    )


class Vocabulary:
    """The tokens of a tokenizer, and which of them must stay.

    Args:
        content: tokenizer.json of a WordPiece or Unigram tokenizer.
        named: more tokens that are special, such as those that tokenizer_config.json names.
    """

    def __init__(self, content: JSON, named: Collection[str] = ()) -> None:
        self._content = content
        self._pieces = _pieces(content)
        self._ids = {piece: number for number, piece in self._pieces.items()}
        added = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
        self._extra = sorted(number for number in added.values() if number not in self._pieces)
        names = {*added, *named, *CONTROL_NAMES, str(content["model"].get("unk_token"))}
        special = {self._ids[name] for name in names if name in self._ids}
        unk_id = content["model"].get("unk_id")
        self._special = special | ({unk_id} if unk_id is not None else set())
        base, self._unreachable = self._base_ids()
        self._base = base - self._special

    @property
    def num_tokens(self) -> int:
        """Return how many tokens there are, special and added ones included."""
        return len(self._pieces) + len(self._extra)

    @property
    def num_special(self) -> int:
        """Return how many special and added tokens there are."""
        return len(self._special) + len(self._extra)

    @property
    def num_base(self) -> int:
        """Return how many other tokens must stay so that nothing becomes unknown."""
        return len(self._base)

    @property
    def num_required(self) -> int:
        """Return how many tokens must stay in any case."""
        return self.num_special + self.num_base

    def check_keep(self, keep: int, num_wanted: int = 0) -> None:
        """Refuse a size that has no room for what must stay.

        Args:
            keep: how many tokens stay in all.
            num_wanted: how many pieces of prompts stay besides special tokens and single characters.

        Raises:
            ConfigError: it is too small.
        """
        least = self.num_required + num_wanted
        if keep < least:
            prompts = f", {num_wanted} pieces of prompts" if num_wanted else ""
            raise ConfigError(
                f"keep: {keep} is less than the {least} tokens that must stay so that nothing becomes "
                f"unknown: {self.num_special} special, {self.num_base} single characters{prompts}; give "
                f"{least} or more, or leave it out"
            )

    def trim(
        self, counts: IntArray, keep: int | None = None, wanted: Iterable[int] = ()
    ) -> TrimmedVocabulary:
        """Cut the vocabulary to what must stay and what is used most.

        Special tokens keep their ids where these are below the new size; all others keep their order.

        Args:
            counts: (V,) how often each id occurs in the texts.
            keep: how many tokens stay in all; None for every one that is used. Where fewer are used, the
                first others of the vocabulary stay, which mostly are the most frequent ones.
            wanted: ids that stay whatever their counts.

        Raises:
            ConfigError: `keep` is less than what must stay.
        """
        required = self._special | self._base
        wanted_ids = (set(wanted) & self._pieces.keys()) - required
        if keep is not None:
            self.check_keep(keep, len(wanted_ids))
        used = np.flatnonzero(counts)
        # the most used first; of equally many the lower id, which mostly is the more frequent piece
        order = used[np.argsort(-counts[used], kind="stable")].tolist()
        free = [i for i in order if i in self._pieces and i not in required and i not in wanted_ids]
        room = len(free) if keep is None else keep - self.num_required - len(wanted_ids)
        chosen = {*free[:room], *wanted_ids}
        filled = self._unused(required | chosen, room - len(free))
        old_ids = self._place(sorted({*required, *chosen, *filled}))
        return TrimmedVocabulary(
            np.array(old_ids, np.int64),
            _rewritten(self._content, old_ids),
            self.num_tokens,
            self.num_special,
            self.num_base,
            len(chosen),
            len(filled),
            len(free) - len(free[:room]),
        )

    def _unused(self, kept: set[int], room: int) -> list[int]:
        """Return the first pieces that are not kept, as many as there is room for."""
        others = (number for number in self._pieces if number not in kept and number not in self._unreachable)
        return list(itertools.islice(others, max(room, 0)))

    def _place(self, kept: Sequence[int]) -> list[int]:
        """Return kept ids of pieces in their new order, and after them those that are added to the model."""
        fixed = {number for number in self._special if number < len(kept)}
        others = iter([number for number in kept if number not in fixed])
        placed = [number if number in fixed else next(others) for number in range(len(kept))]
        return [*placed, *self._extra]

    def _base_ids(self) -> tuple[set[int], set[int]]:
        """Return the ids that must stay, and those that no text can have."""
        model = self._content["model"]
        if model["type"] == "Unigram":
            return _unigram_base(model["vocab"], byte_fallback=bool(model.get("byte_fallback"))), set()
        return _wordpiece_base(self._ids, _prefix(model), isolates=_isolates_signs(self._content))


def special_names(settings: JSON) -> set[str]:
    """Return the tokens that tokenizer_config.json calls special.

    Args:
        settings: tokenizer_config.json, or special_tokens_map.json.
    """
    names: set[str] = set()
    lists = ("additional_special_tokens", "extra_special_tokens")
    for key, value in settings.items():
        if key.endswith("_token"):
            names.add(_content_of(value))
        elif key in lists and isinstance(value, list | dict):
            names |= {_content_of(v) for v in (value.values() if isinstance(value, dict) else value)}
        elif key == "added_tokens_decoder" and isinstance(value, dict):
            names |= {_content_of(v) for v in value.values()}
    return names - {""}


def trim_settings(settings: JSON, new_ids: dict[int, int]) -> JSON:
    """Return tokenizer_config.json with new ids."""
    decoder = settings.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return settings
    moved = {str(new_ids[int(number)]): token for number, token in decoder.items() if int(number) in new_ids}
    return {**settings, "added_tokens_decoder": moved}


def _content_of(token: object) -> str:
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else ""


def _pieces(content: JSON) -> dict[int, str]:
    """Return the pieces of the model by id, in the order of their ids."""
    vocab = content["model"]["vocab"]
    if isinstance(vocab, dict):
        return dict(sorted((number, piece) for piece, number in vocab.items()))
    return {number: piece for number, (piece, _) in enumerate(vocab)}


def _prefix(model: JSON) -> str:
    return str(model.get("continuing_subword_prefix") or "")


def _unigram_base(vocab: Sequence[tuple[str, float]], *, byte_fallback: bool) -> set[int]:
    single = {piece for piece, _ in vocab if len(piece) == 1}
    base = {
        number
        for number, (piece, _) in enumerate(vocab)
        if len(piece) == 1
        or (byte_fallback and len(piece) == 6 and piece.startswith("<0x"))
        or any(character not in single for character in piece)
    }
    lowest = min(range(len(vocab)), key=lambda number: vocab[number][1])
    return base | {lowest}


def _wordpiece_base(ids: dict[str, int], prefix: str, *, isolates: bool) -> tuple[set[int], set[int]]:
    """Return the ids of single characters and of pieces that these cannot spell, and those of no text.

    Where Chinese characters and punctuation are words by themselves, none of them continues a word, and no
    longer piece that has one is ever used.
    """

    def is_reachable(inner: str, *, continues: bool) -> bool:
        is_whole = len(inner) == 1 and not continues
        return is_whole or not (isolates and any(map(_is_isolated, inner)))

    base, unreachable = set(), set()
    for piece, number in ids.items():
        continues = bool(prefix) and piece.startswith(prefix) and len(piece) > len(prefix)
        inner = piece[len(prefix) :] if continues else piece
        if not is_reachable(inner, continues=continues):
            unreachable.add(number)
            continue
        spelled = [prefix + c if continues or place else c for place, c in enumerate(inner)]
        if len(inner) == 1 or any(part not in ids for part in spelled):
            base.add(number)
    return base, unreachable


def _is_isolated(character: str) -> bool:
    """Tell whether a character is Chinese, or a sign of ASCII."""
    code = ord(character)
    return character in string.punctuation or (code >= 0x3400 and any(a <= code <= b for a, b in _CHINESE))


def _isolates_signs(content: JSON) -> bool:
    """Tell whether Chinese characters and signs are words: BERT's own normalizer and pre-tokenizer alone."""
    normalizer, splitter = content.get("normalizer") or {}, content.get("pre_tokenizer") or {}
    is_bert = normalizer.get("type") == "BertNormalizer" and splitter.get("type") == "BertPreTokenizer"
    return is_bert and bool(normalizer.get("handle_chinese_chars"))


def _rewritten(content: JSON, old_ids: Sequence[int]) -> JSON:
    """Return tokenizer.json with the tokens that are left, under their new ids."""
    new_ids = {old: new for new, old in enumerate(old_ids)}
    model = {**content["model"]}
    vocab, pieces = model["vocab"], _pieces(content)
    num_pieces = sum(old in pieces for old in old_ids)
    if isinstance(vocab, dict):
        model["vocab"] = {pieces[old]: new for new, old in enumerate(old_ids[:num_pieces])}
    else:
        model["vocab"] = [vocab[old] for old in old_ids[:num_pieces]]
        if model.get("unk_id") is not None:
            model["unk_id"] = new_ids[model["unk_id"]]
    added = [{**token, "id": new_ids[token["id"]]} for token in content.get("added_tokens") or ()]
    return {
        **content,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "post_processor": _with_new_ids(content.get("post_processor"), new_ids),
        "model": model,
    }


def _with_new_ids(processor: JSON | None, new_ids: dict[int, int]) -> JSON | None:
    """Return a post-processor with new ids.

    Raises:
        ConfigError: it is of a kind that is not known.
    """
    if processor is None:
        return None
    processor = copy.deepcopy(processor)
    kind = processor.get("type")
    if kind == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new_ids[number] for number in token["ids"]]
    elif kind in {"BertProcessing", "RobertaProcessing"}:
        for end in ("sep", "cls"):
            processor[end] = [processor[end][0], new_ids[processor[end][1]]]
    elif kind == "Sequence":
        processor["processors"] = [_with_new_ids(part, new_ids) for part in processor["processors"]]
    elif kind != "ByteLevel":
        raise ConfigError(
            f"model: post_processor {kind!r} in tokenizer.json is not known, and it may hold ids; known are "
            f"{listed(['TemplateProcessing', 'BertProcessing', 'RobertaProcessing', 'Sequence'])}"
        )
    return processor


def parse_tokenizer(text: str) -> JSON:
    """Return tokenizer.json as data."""
    content: JSON = json.loads(text)
    return content
