"""Tags <-> spans. Files have one tag a word; the rest of bertune uses spans.

A span of words is `(start, end, label)`, end exclusive. Seven schemes are read and written. A tag is a
prefix, a separator and an entity type, such as `B-PER`:

    IOB1    I I O I B     I begins and continues; B only where an entity follows another one of its type
    BIO     B I O B B     B begins, I continues (IOB2)
    BIOS    B I O S S     S is an entity of one word
    BIOES   B E O S S     E ends an entity of several words (BILOU is read as this: L is E, U is S)
    BMES    B E O S S     M instead of I
    io      I I O I I     the type alone, without a prefix: entities of one type that touch are one
    none    every word has a tag, such as its part of speech, and is a span of its own

A file whose tags are prefixes alone (B, I, O) has entities of one type, named SPAN.

**Rule for illegal sequences**, the same for every scheme, so that no entity is lost: any tag but `O` belongs
to an entity. An entity continues while the type stays the same, unless a prefix ends it (E, S) or begins
another one (B, S). conlleval and seqeval (default mode) read tags in this way. A note says how many
transitions the scheme of the file does not allow.

Sources: Ramshaw and Marcus 1995; Tjong Kim Sang and Veenstra 1999; Ratinov and Roth 2009.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bertune.errors import DataError, listed

Scheme = Literal["IOB1", "BIO", "BIOS", "BIOES", "BMES", "io", "none"]
WordSpan = tuple[int, int, str]
Tag = tuple[str, str]
"""Prefix, in the letters of BIOES, and type; `("O", "")` outside of entities."""

_PREFIXES: dict[Scheme, str] = {"BIO": "BI", "IOB1": "BI", "BIOS": "BIS", "BIOES": "BIES", "BMES": "BIES"}
"""The prefixes of each scheme, M read as I. The first scheme wins where several fit a file."""
UNTYPED = "SPAN"
"""The type of tags that are a prefix alone."""
NO_TAG = "_"
"""What is written, in the scheme `none`, for a word without tokens, which no model can judge."""
_SYNONYMS = {"M": "I", "L": "E", "U": "S"}
_TAG = re.compile(r"([BIMESLU])[-_](.+)", re.DOTALL)
BOUNDARY = "^"
"""The prefix that stands for the edges of a sentence."""


@functools.lru_cache(maxsize=4096)  # a file has few different tags and many words
def parse_tag(tag: str) -> Tag:
    """Return prefix and type of a tag, M read as I, L as E, U as S.

    >>> parse_tag("B-PER"), parse_tag("M-LOC.NAM"), parse_tag("O")
    (('B', 'PER'), ('I', 'LOC.NAM'), ('O', ''))

    Raises:
        DataError: it is not a tag; the caller adds the location to the message.
    """
    if tag == "O":
        return "O", ""
    match = _TAG.fullmatch(tag)
    if match:
        return _SYNONYMS.get(match[1], match[1]), match[2]
    if len(tag) == 1 and tag in "BIMESLU":
        return _SYNONYMS.get(tag, tag), UNTYPED
    prefix = tag.rstrip("-_")
    if prefix in set("BIMESLU"):
        raise DataError(f"the tag {tag!r} has no type; write {prefix}-TYPE, such as {prefix}-PER")
    if not tag:
        raise DataError("the tag is empty; a word outside of entities has the tag O")
    if tag.isdecimal():
        raise DataError(
            f"the tag is the number {tag}; name the tags by their position, as in data.labels=[O,B-PER,I-PER]"
        )
    raise DataError(
        f"{tag!r} is not a tag; a tag is O, or one of B, I, M, E, S, L, U with a type, such as B-PER; "
        "for types without a prefix set options.scheme=io, for one tag a word, such as its part of speech, "
        "options.scheme=none"
    )


def read_tag(tag: str, scheme: Scheme) -> Tag:
    """Return prefix and type of a tag of a file, for a model with tags in a scheme.

    >>> read_tag("PER", "io"), read_tag("B-PER", "io"), read_tag("NOUN", "none")
    (('I', 'PER'), ('B', 'PER'), ('S', 'NOUN'))

    Raises:
        DataError: it is not a tag; the caller adds the location to the message.
    """
    if scheme not in {"io", "none"}:
        return parse_tag(tag)
    if not tag:
        raise DataError("the tag is empty")
    if scheme == "none":
        return "S", tag
    return parse_tag(tag) if tag == "O" or _TAG.fullmatch(tag) else ("I", tag)


def parse_model_tag(tag: str, scheme: Scheme) -> Tag:
    """Return prefix and type of a tag that a model predicts; see `tag_set`.

    >>> parse_model_tag("B-cell", "io"), parse_model_tag("O", "none")
    (('I', 'B-cell'), ('S', 'O'))
    """
    if scheme == "none":
        return "S", tag
    return ("I", tag) if scheme == "io" and tag != "O" else parse_tag(tag)


def is_tag(text: str) -> bool:
    """Tell whether a text is a tag.

    >>> is_tag("B-PER"), is_tag("PER")
    (True, False)
    """
    try:
        parse_tag(text)
    except DataError:
        return False
    return True


def tags_to_spans(tags: Iterable[Tag]) -> list[WordSpan]:
    """Return the entities of a sentence, by the rule in this module's docstring.

    >>> tags_to_spans(map(parse_tag, ["B-PER", "I-LOC", "I-LOC", "O", "S-PER"]))
    [(0, 1, 'PER'), (1, 3, 'LOC'), (4, 5, 'PER')]
    """
    spans: list[WordSpan] = []
    start, open_label = 0, ""
    word = -1
    for word, (prefix, label) in enumerate(tags):
        if open_label and (label != open_label or prefix in "BS"):
            spans.append((start, word, open_label))
            open_label = ""
        if label and not open_label:
            start, open_label = word, label
        if open_label and prefix in "ES":
            spans.append((start, word + 1, open_label))
            open_label = ""
    if open_label:
        spans.append((start, word + 1, open_label))
    return spans


def spans_to_tags(spans: Iterable[WordSpan], num_words: int, scheme: Scheme) -> list[str]:
    """Return the tags of a sentence, one a word.

    Args:
        spans: entities that do not overlap.
        num_words: words of the sentence.
        scheme: the scheme of the tags.

    >>> spans_to_tags([(0, 2, "PER"), (2, 3, "PER")], 4, "BMES")
    ['B-PER', 'E-PER', 'S-PER', 'O']
    """
    tags = [NO_TAG if scheme == "none" else "O"] * num_words
    if scheme in {"io", "none"}:
        for start, end, label in spans:
            tags[start:end] = [label] * (end - start)
        return tags
    previous: WordSpan = (0, -1, "")
    inside = "M" if scheme == "BMES" else "I"
    for start, end, label in sorted(spans):
        touches = previous[1] == start and previous[2] == label
        first = "I" if scheme == "IOB1" and not touches else "B"
        last = "E" if scheme in {"BIOES", "BMES"} else inside
        single = "S" if scheme in {"BIOS", "BIOES", "BMES"} else first
        prefixes = [single] if end - start == 1 else [first, *[inside] * (end - start - 2), last]
        tags[start:end] = [f"{prefix}-{label}" for prefix in prefixes]
        previous = (start, end, label)
    return tags


def tag_set(labels: Iterable[str], scheme: Scheme) -> list[str]:
    """Return every tag of a scheme, `O` first, type by type. In the scheme `none` the types are the tags.

    >>> tag_set(["PER"], "BIOS")
    ['O', 'B-PER', 'I-PER', 'S-PER']
    """
    if scheme == "none":
        return list(labels)
    if scheme == "io":
        return ["O", *labels]
    prefixes = _PREFIXES[scheme].replace("I", "M") if scheme == "BMES" else _PREFIXES[scheme]
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in prefixes)]


def is_transition_allowed(scheme: Scheme, tag: Tag | None, next_tag: Tag | None) -> bool:
    """Tell whether one tag may follow another; None is the edge of the sentence.

    >>> is_transition_allowed("BIO", ("B", "PER"), ("I", "PER"))
    True
    >>> is_transition_allowed("BIO", None, ("I", "PER"))
    False
    >>> is_transition_allowed("BIOES", ("B", "PER"), None)
    False
    """
    if scheme in {"io", "none"}:
        return True
    prefix, label = tag or ("O", "")
    next_prefix, next_label = next_tag or ("O", "")
    same_type = label == next_label
    if scheme == "IOB1":
        return next_prefix != "B" or (prefix != "O" and same_type)
    continues = next_prefix in "IE"
    if scheme == "BIOS" and prefix == "B":  # an entity of one word would be S
        return next_prefix == "I" and same_type
    if scheme in {"BIO", "BIOS"}:
        return not continues or (prefix in "BI" and same_type)
    is_open = prefix in "BI"  # BIOES and BMES: an open entity must continue, and nothing else can
    return is_open == continues and (not continues or same_type)


@dataclass
class TagCounts:
    """Counts the tags of a file, so that its scheme is known once all of it was read."""

    prefixes: Counter[str] = field(default_factory=Counter)
    """How often each prefix occurs, as the file writes it."""
    transitions: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """How often one prefix follows another, and whether their types are the same."""
    first_locations: dict[tuple[str, str, bool], str] = field(default_factory=dict)
    """The first sentence with each of these transitions."""
    num_plain: int = 0
    """Tags that are no prefix with a type, besides O."""
    num_prefixed: int = 0
    """Tags with a prefix, or a prefix alone."""

    def add(self, written: Sequence[str], tags: Sequence[Tag], location: str) -> None:
        """Add a sentence: its tags as they were written and as they were parsed."""
        self.prefixes.update(tag[0] for tag in written)
        plain = sum(tag != "O" and not (_TAG.fullmatch(tag) or len(tag) == 1) for tag in written)
        self.num_plain += plain
        self.num_prefixed += sum(tag != "O" for tag in written) - plain
        with_edges: list[Tag] = [(BOUNDARY, ""), *tags, (BOUNDARY, "")]
        for (prefix, label), (next_prefix, next_label) in itertools.pairwise(with_edges):
            transition = (prefix, next_prefix, label == next_label)
            self.transitions[transition] += 1
            self.first_locations.setdefault(transition, location)

    def count_illegal(self, scheme: Scheme) -> tuple[int, str]:
        """Return how many transitions the scheme does not allow, and the location of the first."""

        def tag(prefix: str, label: str) -> Tag | None:
            if prefix == BOUNDARY:
                return None
            return ("O", "") if prefix == "O" else (prefix, label)

        illegal = [
            (prefix, next_prefix, same_type)
            for prefix, next_prefix, same_type in self.transitions
            if not is_transition_allowed(
                scheme, tag(prefix, "x"), tag(next_prefix, "x" if same_type else "y")
            )
        ]
        count = sum(self.transitions[transition] for transition in illegal)
        return count, self.first_locations[illegal[0]] if illegal else ""

    def detect_scheme(self) -> Scheme:
        """Return the scheme that has all prefixes of the file and allows the most of its transitions."""
        prefixes = {_SYNONYMS.get(prefix, prefix) for prefix in self.prefixes} - {"O"}
        candidates = [scheme for scheme, allowed in _PREFIXES.items() if prefixes <= set(allowed)]
        if "M" in self.prefixes:
            candidates = ["BMES"]
        return min(candidates, key=lambda scheme: self.count_illegal(scheme)[0])

    def describe(self, source: str, model_scheme: Scheme = "BIO") -> str:
        """Return a line that names the scheme of the file, and how much of it is illegal.

        Args:
            source: the file.
            model_scheme: the scheme of the model, which says how the file was read.
        """
        if model_scheme == "none":
            return f"{source}: one tag a word"
        if model_scheme == "io" and self.num_plain:
            prefixed = f"; {self.num_prefixed} have one, which is read as such" if self.num_prefixed else ""
            return f"{source}: tags without prefixes{prefixed}"
        scheme = self.detect_scheme()
        count, location = self.count_illegal(scheme)
        illegal = (
            f"; {count} transitions are illegal in it, the first in the sentence at {location}: "
            "still read as entities"
            if count
            else ""
        )
        return f"{source}: tags in {scheme} ({listed(sorted(self.prefixes))}){illegal}"
