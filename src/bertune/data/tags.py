"""Tags <-> spans: one tag a word in a file, entities everywhere else.

An entity is `(start, end, label)` in words, end exclusive. Five schemes are read and written; a tag is a prefix, a separator and a
type, such as `B-PER`:

    IOB1    I I O I B     I begins and goes on; B only where an entity follows another one of its type
    BIO     B I O B B     B begins, I goes on (IOB2)
    BIOS    B I O S S     S is an entity of one word
    BIOES   B E O S S     E ends an entity of several words (BILOU is read as this: L is E, U is S)
    BMES    B E O S S     M instead of I

**Rule for illegal sequences**, the same for every scheme, so that no entity is lost: whatever is not `O` belongs to an entity; one goes
on while the type stays the same and nothing says that it has ended (E, S) or that another begins (B, S). This is how conlleval and seqeval
(default mode) read tags. How many places are illegal in the scheme of the file is counted, and said.

Sources: Ramshaw and Marcus 1995; Tjong Kim Sang and Veenstra 1999; Ratinov and Roth 2009.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bertune.errors import DataError, listed

Scheme = Literal["IOB1", "BIO", "BIOS", "BIOES", "BMES"]
WordSpan = tuple[int, int, str]
Tag = tuple[str, str]  # prefix in the letters of BIOES, type; ("O", "") outside

_PREFIXES: dict[Scheme, str] = {"BIO": "BI", "IOB1": "BI", "BIOS": "BIS", "BIOES": "BIES", "BMES": "BIES"}
"""The prefixes of each scheme, M read as I. The first scheme wins where a file fits several."""
_SYNONYMS = {"M": "I", "L": "E", "U": "S"}
_TAG = re.compile(r"([BIMESLU])[-_](.+)", re.DOTALL)
BOUNDARY = "^"
"""What stands before the first word and after the last."""


def parse_tag(tag: str) -> Tag:
    """Return prefix and type of a tag, M read as I, L as E, U as S.

    >>> parse_tag("B-PER"), parse_tag("M-LOC.NAM"), parse_tag("O")
    (('B', 'PER'), ('I', 'LOC.NAM'), ('O', ''))

    Raises:
        DataError: it is no tag; the message lacks the place, which the caller knows.
    """
    if tag == "O":
        return "O", ""
    found = _TAG.fullmatch(tag)
    if found:
        return _SYNONYMS.get(found[1], found[1]), found[2]
    if tag.rstrip("-_") in set("BIMESLU"):
        raise DataError(
            f"the tag {tag!r} has no type; write {tag.rstrip('-_')}-TYPE, such as {tag.rstrip('-_')}-PER"
        )
    raise DataError(
        f"{tag!r} is no tag; a tag is O, or one of B, I, M, E, S, L, U with a type, such as B-PER"
    )


def tags_to_spans(tags: Iterable[Tag]) -> list[WordSpan]:
    """Return the entities of a sentence; see the rule above. No tag but `O` is ever without an entity.

    >>> tags_to_spans(map(parse_tag, ["B-PER", "I-LOC", "I-LOC", "O", "S-PER"]))
    [(0, 1, 'PER'), (1, 3, 'LOC'), (4, 5, 'PER')]
    """
    spans: list[WordSpan] = []
    start, kind = 0, ""
    place = -1
    for place, (prefix, label) in enumerate(tags):
        if kind and (label != kind or prefix in "BS"):
            spans.append((start, place, kind))
            kind = ""
        if label and not kind:
            start, kind = place, label
        if kind and prefix in "ES":
            spans.append((start, place + 1, kind))
            kind = ""
    if kind:
        spans.append((start, place + 1, kind))
    return spans


def spans_to_tags(spans: Iterable[WordSpan], num_words: int, scheme: Scheme) -> list[str]:
    """Write entities as tags, one a word.

    Args:
        spans: entities that do not overlap.
        num_words: words of the sentence.
        scheme: how to write them.

    >>> spans_to_tags([(0, 2, "PER"), (2, 3, "PER")], 4, "BMES")
    ['B-PER', 'E-PER', 'S-PER', 'O']
    """
    tags = ["O"] * num_words
    before: WordSpan = (0, -1, "")
    inside = "M" if scheme == "BMES" else "I"
    for start, end, label in sorted(spans):
        touches = before[1] == start and before[2] == label
        first = "I" if scheme == "IOB1" and not touches else "B"
        last = "E" if scheme in {"BIOES", "BMES"} else inside
        only = "S" if scheme in {"BIOS", "BIOES", "BMES"} else first
        prefixes = [only] if end - start == 1 else [first, *[inside] * (end - start - 2), last]
        tags[start:end] = [f"{prefix}-{label}" for prefix in prefixes]
        before = (start, end, label)
    return tags


def tag_set(labels: Iterable[str], scheme: Scheme) -> list[str]:
    """Return every tag of a scheme, `O` first, type by type.

    >>> tag_set(["PER"], "BIOS")
    ['O', 'B-PER', 'I-PER', 'S-PER']
    """
    prefixes = _PREFIXES[scheme].replace("I", "M") if scheme == "BMES" else _PREFIXES[scheme]
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in prefixes)]


def is_transition_allowed(scheme: Scheme, before: Tag | None, after: Tag | None) -> bool:
    """Tell whether one tag may follow another; None is the edge of the sentence.

    >>> is_transition_allowed("BIO", ("B", "PER"), ("I", "PER")), is_transition_allowed("BIO", None, ("I", "PER")), is_transition_allowed("BIOES", ("B", "PER"), None)
    (True, False, False)
    """
    p, p_type = before or ("O", "")
    n, n_type = after or ("O", "")
    same = p_type == n_type
    if scheme == "IOB1":
        return n != "B" or (p != "O" and same)
    goes_on = n in "IE"
    if scheme == "BIOS" and p == "B":  # alone it would be S
        return n == "I" and same
    if scheme in {"BIO", "BIOS"}:
        return not goes_on or (p in "BI" and same)
    open_before = p in "BI"  # BIOES and BMES: an entity that has begun must go on, and nothing else can
    return open_before == goes_on and (not goes_on or same)


@dataclass
class TagCounts:
    """The tags of a file, counted, so that its scheme can be told once all of it is read."""

    prefixes: Counter[str] = field(default_factory=Counter)
    """As the file writes them."""
    transitions: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """How often one prefix follows another, and whether their types are the same."""
    first_seen: dict[tuple[str, str, bool], str] = field(default_factory=dict)
    """Where each of these was seen first."""

    def add(self, written: Sequence[str], tags: Sequence[Tag], place: str) -> None:
        """Take in a sentence: its tags as they were written and as they were read."""
        self.prefixes.update(tag[0] for tag in written)
        edged: list[Tag] = [(BOUNDARY, ""), *tags, (BOUNDARY, "")]
        for (p, p_type), (n, n_type) in itertools.pairwise(edged):
            key = (p, n, p_type == n_type)
            self.transitions[key] += 1
            self.first_seen.setdefault(key, place)

    def count_illegal(self, scheme: Scheme) -> tuple[int, str]:
        """Return how many pairs of tags the scheme does not allow, and the sentence of the first."""

        def tag(prefix: str, label: str) -> Tag | None:
            return None if prefix == BOUNDARY else ("O", "") if prefix == "O" else (prefix, label)

        wrong = [
            key
            for key in self.transitions
            if not is_transition_allowed(scheme, tag(key[0], "x"), tag(key[1], "x" if key[2] else "y"))
        ]
        return sum(self.transitions[key] for key in wrong), self.first_seen[wrong[0]] if wrong else ""

    def detect_scheme(self) -> Scheme:
        """Return the scheme that has all prefixes seen and the fewest illegal pairs."""
        read = {_SYNONYMS.get(prefix, prefix) for prefix in self.prefixes} - {"O"}
        fitting = [scheme for scheme, prefixes in _PREFIXES.items() if read <= set(prefixes)]
        if "M" in self.prefixes:
            fitting = ["BMES"]
        return min(fitting, key=lambda scheme: self.count_illegal(scheme)[0])

    def describe(self, source: str) -> str:
        """Say what scheme the file has, and what is illegal in it."""
        scheme = self.detect_scheme()
        count, place = self.count_illegal(scheme)
        wrong = (
            f"; {count} places are illegal in it, the first in the sentence at {place}: read as entities all the same"
            if count
            else ""
        )
        return f"{source}: tags in {scheme} ({listed(sorted(self.prefixes))}){wrong}"
