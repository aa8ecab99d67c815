"""What the labels of pairs mean: scores, where a higher one says that texts are more alike, or classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bertune.data.columns import ColumnMapping, columns_of, normalize_name
from bertune.data.labels import get_label, get_number, is_missing
from bertune.errors import DataError, listed
from bertune.tasks.base.sentence import int_if_whole
from bertune.types import Example, Row

RELATED_LABELS = {"entailment", "蕴含"}
"""Labels in words of pairs that belong together."""
UNRELATED_LABELS = {"neutral", "contradiction", "not_entailment", "non_entailment", "中立", "中性", "矛盾"}
"""Labels in words of pairs that do not."""
_NLI_COLUMNS = {"premise", "hypothesis"}
"""The columns of NLI data. Their numbers are classes; in most such files 0 is entailment."""
_SCORE_COLUMNS = {
    "score", "similarity", "similarityscore", "relatedness", "relatednessscore", "rating", "分数"
}  # fmt: skip
_NO_LABEL = "-"  # of SNLI
_SEARCH_COLUMNS = {"query", "document", "documents", "doc", "passage"}
_SCORES_OR_CLASSES = (
    "set options.loss=cosent if a higher number says that texts are more alike, or options.loss=softmax "
    "if numbers are classes"
)


class TargetKind(NamedTuple):
    """Whether labels are classes, and why, as the user should read it."""

    is_classes: bool
    reason: str = ""


def choose_target(examples: Sequence[Example], mapping: ColumnMapping, target: str) -> TargetKind:
    """Return what the labels of training rows are.

    Args:
        examples: rows with numbers, or with words.
        mapping: which columns they come from; empty if unknown.
        target: the field of the label.

    Raises:
        DataError: nothing says whether whole numbers are scores or classes.
    """
    values: set[Any] = {e.target for e in examples}
    if _NO_LABEL in values:
        raise DataError(
            f"{examples[0].location.source}: some labels are '-', which NLI data has for pairs without a "
            "label: leave them out by data.drop_labels=['-'], or set options.loss=softmax to learn it too"
        )
    if any(isinstance(value, str) for value in values):
        return TargetKind(True, "labels in words are learned as classes (options.loss=softmax)")
    texts = _names(mapping, lambda field: field != target)
    is_nli, is_class_like = texts >= _NLI_COLUMNS, look_like_classes(values)
    if not is_nli and not is_class_like:
        return TargetKind(False)
    if _names(mapping, lambda field: field == target) & _SCORE_COLUMNS:
        return TargetKind(False)
    return _choose_numbers(values, texts, examples[0].location.source)


def _names(mapping: ColumnMapping, wanted: Callable[[str], bool]) -> set[str]:
    """Return the names of the columns of some fields, in the form in which names are compared."""
    columns = columns_of({field: names for field, names in mapping.items() if wanted(field)})
    return {normalize_name(column) for column in columns}


def _choose_numbers(values: set[Any], texts: set[str], source: str) -> TargetKind:
    """Return what numbers are that may be classes, by their values or by the columns of the texts."""
    shown = listed([f"{value:g}" for value in sorted(values)])
    if values == {-1, 0, 1, 2}:
        raise DataError(
            f"{source}: the labels are {shown}. In NLI data -1 is for pairs without a label: leave them out "
            f"by data.drop_labels=[-1]. Else {_SCORES_OR_CLASSES}"
        )
    if not all(isinstance(value, int) for value in values):
        return TargetKind(False)
    if len(values) > 3 or texts & _SEARCH_COLUMNS:
        raise DataError(f"{source}: the labels {shown} may be scores or classes; {_SCORES_OR_CLASSES}")
    return TargetKind(
        True,
        f"the labels {shown} are learned as classes (options.loss=softmax); if a higher number says that "
        "texts are more alike, set options.loss=cosent",
    )


def has_nli_columns(mapping: ColumnMapping) -> bool:
    """Tell whether columns have the names of NLI data."""
    return _names(mapping, bool) >= _NLI_COLUMNS


def read_number_or_label(row: Row, field: str) -> int | float | str | None:
    """Return a number, or a label in words.

    Raises:
        DataError: the value is neither.
    """
    value = row.fields.get(field)
    if is_missing(value) or not isinstance(value, str):
        return int_if_whole(get_number(row, field)) if not is_missing(value) else None
    try:
        return int_if_whole(get_number(row, field))
    except DataError:
        is_number = re.fullmatch(r"[\s\d.,_+-]*|[+-]?(inf|infinity|nan)", value, re.IGNORECASE)
        if is_number and value.strip() != _NO_LABEL:
            raise  # a number that cannot be read
        return get_label(row, field)


def read_relatedness(row: Row, field: str) -> int | float | str | None:
    """Return the score of a pair, or its label in words as NLI data has it.

    Raises:
        DataError: it is another text.
    """
    value = row.fields.get(field)
    if isinstance(value, str) and value.strip() == _NO_LABEL:
        raise DataError(
            f"{row.location}: {field!r} is '-', as NLI data has it for pairs without a label; "
            "remove the row, or set data.bad_rows=skip"
        )
    if isinstance(value, str) and _label_key(value) in RELATED_LABELS | UNRELATED_LABELS:
        return get_label(row, field)
    return int_if_whole(get_number(row, field))


def _label_key(label: str) -> str:
    return re.sub(r"[\s_\-]+", "_", label.strip().lower())


def relatedness(target: Any) -> Any:
    """Return a score as it is, and 1 or 0 for a label in words."""
    return int(_label_key(target) in RELATED_LABELS) if isinstance(target, str) else target


def look_like_classes(numbers: Iterable[float]) -> bool:
    """Tell whether whole numbers may be numbers of classes: three that follow each other, as in NLI data.

    >>> look_like_classes([0, 2, 1]), look_like_classes([0, 1]), look_like_classes([0, 1, 2, 3, 4, 5])
    (True, False, False)
    >>> look_like_classes([-1, 0, 1, 2])  # as in SNLI, where -1 is for pairs without a label
    True
    """
    values = set(numbers)
    if not all(float(value).is_integer() for value in values):
        return False
    return values == {-1, 0, 1, 2} or (len(values) == 3 and max(values) - min(values) == 2)
