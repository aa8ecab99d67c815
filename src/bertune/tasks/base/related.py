"""Rows of texts that belong together: one text, those that belong to it, and those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bertune.data.columns import SpreadValue
from bertune.data.labels import get_number, get_text, is_missing
from bertune.errors import DataError
from bertune.tasks.base.pair_labels import read_relatedness
from bertune.tasks.base.task import Note
from bertune.types import Example, Row


def read_related(row: Row, target: str) -> Example:
    """Return the texts of a row, and its score or label where it has one.

    `text_b` may be a list: of texts that all belong to `text`, or beside a list of labels 0 and 1. `negative`
    may be a list, or spread over several columns; where it is empty the row has no negative.

    Raises:
        DataError: a text is missing or empty, or is no text; or labels do not fit the texts.
    """
    first = get_text(row, "text")
    negatives = _texts(row, "negative", may_be_empty=True) if "negative" in row.fields else []
    if "text_b" not in row.fields:
        if "negative" in row.fields:
            raise DataError(f"{row.location}: has a 'negative' but no 'text_b' that belongs to the text")
        return Example((first,), None, row.location)  # the score of a single text would mean nothing
    positives, labels = _texts(row, "text_b"), row.fields.get(target)
    score = None
    if isinstance(labels, list) and isinstance(row.fields["text_b"], list):
        positives, others = _divide(row, positives, labels, target)
        negatives = others + negatives
    else:
        score = read_relatedness(row, target)
    positives, negatives = list(dict.fromkeys(positives)), list(dict.fromkeys(negatives))
    return Example((first, *positives, *negatives), score, row.location, num_positives=len(positives))


def _texts(row: Row, field: str, *, may_be_empty: bool = False) -> list[str]:
    """Return the texts of a field: one, those of a list, or those of several columns."""
    value = row.fields[field]
    if field == "negative" and isinstance(value, SpreadValue):
        value = [v for part in value.values() for v in (part if isinstance(part, list) else [part])]
    elif not isinstance(value, list):
        value = [value] if not may_be_empty else [] if _is_empty(value) else [value]
    elif not value and not may_be_empty:
        raise DataError(
            f"{row.location}: {field!r} is an empty list; a text that belongs to 'text' is needed; "
            "remove the row, or set data.bad_rows=skip"
        )
    kept = [v for v in value if not (may_be_empty and _is_empty(v))]
    return [get_text(replace(row, fields={field: v}), field) for v in kept]


def _is_empty(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def _divide(row: Row, texts: list[str], labels: list[Any], target: str) -> tuple[list[str], list[str]]:
    """Return the texts labelled 1, and those labelled 0."""
    numbers = [get_number(replace(row, fields={target: label}), target) for label in labels]
    if len(numbers) != len(texts):
        raise DataError(f"{row.location}: {len(texts)} texts in 'text_b', but {len(numbers)} in {target!r}")
    wrong = next((label for label, n in zip(labels, numbers, strict=True) if n not in {0, 1}), None)
    if wrong is not None:
        raise DataError(
            f"{row.location}: {target!r} has {wrong!r}; in a list of labels 1 is for texts that belong to "
            "'text' and 0 for others"
        )
    pairs = list(zip(texts, numbers, strict=True))
    positives = [text for text, n in pairs if n]
    if not positives:
        raise DataError(
            f"{row.location}: no text is labelled 1, so none belongs to 'text'; "
            "remove the row, or set data.bad_rows=skip"
        )
    return positives, [text for text, n in pairs if not n]


@dataclass(frozen=True)
class RowShape:
    """How many texts rows have besides the first: the fewest and the most of a row."""

    positives: tuple[int, int] = (1, 1)
    negatives: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, examples: Sequence[Example]) -> RowShape:
        """Return the shape of rows of several texts."""
        positives = [e.num_positives for e in examples]
        negatives = [len(e.texts) - 1 - e.num_positives for e in examples]
        return cls((min(positives), max(positives)), (min(negatives), max(negatives)))

    def describe(self) -> str:
        """Return the shape in words.

        >>> RowShape(negatives=(1, 1)).describe()
        'pairs of texts that belong together, each with a hard negative'
        >>> RowShape((1, 2), (0, 3)).describe()
        'texts, each with 1 to 2 that belong to it and 0 to 3 hard negatives'
        """
        negatives = _amount(self.negatives, "hard negative")
        if self.positives == (1, 1):
            pairs = "pairs of texts that belong together"
            return pairs if self.negatives == (0, 0) else f"{pairs}, each with {negatives}"
        low, high = self.positives
        others = "" if self.negatives == (0, 0) else f" and {negatives}"
        return f"texts, each with {low if low == high else f'{low} to {high}'} that belong to it{others}"


def _amount(bounds: tuple[int, int], noun: str) -> str:
    low, high = bounds
    if low != high:
        return f"{low} to {high} {noun}s"
    return f"a {noun}" if low == 1 else f"{low} {noun}s"


def are_single(examples: Sequence[Example]) -> bool:
    """Tell whether rows are single texts.

    Raises:
        DataError: some are and others are not.
    """
    is_single = len(examples[0].texts) == 1
    other = next((e for e in examples if (len(e.texts) == 1) != is_single), None)
    if other is not None:
        raise DataError(
            f"{other.location}: has {_num_texts(other)}, {examples[0].location} has "
            f"{_num_texts(examples[0])}; rows of one split must have the same parts"
        )
    return is_single


def _num_texts(example: Example) -> str:
    number = len(example.texts)
    return "1 text" if number == 1 else f"{number} texts"


def check_negatives(examples: Sequence[Example]) -> None:
    """Check that rows differ, so that a text can be told from others.

    Raises:
        DataError: all rows have the same first text, or the same text belongs to all of them; or each text
            belongs to itself.
    """
    first, source = examples[0], examples[0].location.source
    if all(e.texts[0] == first.texts[0] for e in examples):
        raise DataError(f"{source}: every row has the same text; there is no other text to tell it from")
    if len(first.texts) > 1 and all(set(e.texts[1:]) == {first.texts[1]} for e in examples):
        raise DataError(
            f"{source}: {first.texts[1][:40]!r} belongs to the text of every row; "
            "there is no other text to tell it from"
        )
    if len(first.texts) > 1 and all(set(e.texts) == {e.texts[0]} for e in examples):
        raise DataError(
            f"{source}: both texts of every row are the same; for single texts (SimCSE) leave out the second "
            "column, as in data.columns={text: NAME}"
        )


def note_pairs(examples: Sequence[Example], note: Note) -> None:
    """Note what is unusual about rows of several texts."""
    num_same = sum(e.texts[0] in e.texts[1 : 1 + e.num_positives] for e in examples)
    if num_same:
        note(f"{num_same} of {len(examples)} rows have a text that belongs to itself")
    num_contrary = sum(
        bool({*e.texts[: 1 + e.num_positives]} & {*e.texts[1 + e.num_positives :]}) for e in examples
    )
    if num_contrary:
        note(f"{num_contrary} of {len(examples)} rows have a negative that is also the text or belongs to it")
    num_several = sum(e.num_positives > 1 for e in examples)
    if num_several:
        note(
            f"{num_several} of {len(examples)} rows have several texts that belong to one: each is a pair of "
            "its own, and the others are no negatives of it"
        )
