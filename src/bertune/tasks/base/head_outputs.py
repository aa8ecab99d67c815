"""What the outputs of a head mean, so that a run can tell whether it goes on from another run's head."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

ONE_LABEL, SEVERAL_LABELS = "one label a row", "any number of labels a row"
NUMBER, TAGS, PAIR_LABEL, VECTORS = "a number", "a tag a word", "the label of two vectors", "vectors"
MASKED_TOKENS = "masked tokens"
_UNNAMED = re.compile(r"LABEL_\d+")
"""How transformers names labels that nobody has named."""


@dataclass(frozen=True)
class HeadOutputs:
    """What a head gives, and the names of its outputs."""

    kind: str
    """One of the kinds above: weights mean something in a head of the same kind only."""
    labels: tuple[str, ...] = ()
    """The label of each output; () for a number, for vectors and for tokens."""
    by_position: tuple[str, ...] = ()
    """The labels in the order that a folder without names of labels is taken to have; () where none is
    known."""

    @property
    def noun(self) -> str:
        """Return what `labels` are called, with their number."""
        return _count(len(self.labels), "tag" if self.kind == TAGS else "label")


@dataclass(frozen=True)
class LabelMatch:
    """Which output of another head each output goes on from."""

    places: tuple[int | None, ...]
    """For each output its row in the other head; None where it is new."""
    by_position: bool = False
    """Whether the other head has no names of labels, so that the order says which is which."""

    @property
    def is_empty(self) -> bool:
        """Tell whether every output is new."""
        return all(place is None for place in self.places)


def match_labels(here: HeadOutputs, there: HeadOutputs) -> LabelMatch:
    """Return which outputs of a folder's head those of a run go on from: those of the same name.

    A folder that calls its labels LABEL_0, LABEL_1 and so on has no names. Labels that are numbers are those
    of their number, others go by the order, if there are as many.

    >>> match_labels(HeadOutputs("x", ("a", "b")), HeadOutputs("x", ("b", "c"))).places
    (None, 0)
    >>> match_labels(HeadOutputs("x", ("1", "0")), HeadOutputs("x", ("LABEL_0", "LABEL_1"))).places
    (1, 0)
    """
    if not here.labels and not there.labels:
        return LabelMatch((0,))
    found = _places(here.labels, there.labels)
    if not found.is_empty or not has_no_names(there.labels):
        return found
    numbers = [name.removeprefix("LABEL_") for name in there.labels]
    if set(here.labels) == set(numbers):
        return _places(here.labels, numbers)
    if len(here.by_position) == len(there.labels) and set(here.labels) == set(here.by_position):
        return LabelMatch(_places(here.labels, here.by_position).places, by_position=True)
    return found


def has_no_names(labels: Sequence[str]) -> bool:
    """Tell whether labels are called as transformers calls those without a name."""
    return bool(labels) and all(_UNNAMED.fullmatch(label) for label in labels)


def _places(labels: Sequence[str], others: Sequence[str]) -> LabelMatch:
    rows = {label: row for row, label in enumerate(others)}
    return LabelMatch(tuple(rows.get(label) for label in labels))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
