"""The labels of rows to classify: which form the files write them in, decided once for a pass."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from bertune.data.label_settings import find_labels
from bertune.data.labels import (
    LabelTypeCheck,
    format_label,
    get_label,
    get_label_list,
    get_labels,
    is_missing,
    read_labels,
    sort_labels,
)
from bertune.data.list_text import parse_list_text
from bertune.data.multi_hot import all_flags, is_multi_hot, labels_of_columns, labels_of_list, parse_flag
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows
from bertune.errors import ConfigError, DataError, listed
from bertune.tasks.base.row_reader import RowReader
from bertune.tasks.base.task import Note
from bertune.types import Example, Row

if TYPE_CHECKING:
    from bertune.tasks.classify import Classify

Target = str | tuple[str, ...] | None
MOST_PAIRS = 10_000
"""Rows that are looked at to tell what lists of two numbers mean."""


def read_target(
    row: Row,
    field: str,
    delimiter: str | None,
    *,
    is_multi_label: bool | None,
    multi_hot_labels: Sequence[str] = (),
) -> Target:
    """Return the label of a row, a tuple of its labels, or None.

    Args:
        row: the row.
        field: the field with the target.
        delimiter: the character between labels in text.
        is_multi_label: whether rows have several labels; None goes by the row.
        multi_hot_labels: the label of each 0 or 1, where the rows write one for each label.

    Raises:
        DataError: the value is none of a label, or not in the form of the other rows.
    """
    value = row.fields.get(field)
    if is_missing(value):
        return None
    if isinstance(value, dict):
        _check_columns(row, field, value, multi_hot_labels)
        return _one_or_all(row, field, labels_of_columns(row, field, value), is_multi_label)
    stays_text = isinstance(value, str) and is_multi_label is False
    values = None if stays_text else get_label_list(value, delimiter)
    names = multi_hot_labels
    if not names and is_multi_label is None and values is not None and len(values) > 2 and all_flags(values):
        names = tuple(map(str, range(len(values))))
    if names and not _name_labels(values, names):
        labels = labels_of_list(row, field, [value] if values is None else values, names)
        return _one_or_all(row, field, labels, is_multi_label)
    if is_multi_label or (is_multi_label is None and values is not None):
        return get_labels(row, field, delimiter)
    return get_label(row, field)


def _name_labels(values: list[Any] | None, labels: Sequence[str]) -> bool:
    """Tell whether a list names labels although the other rows write 0 or 1, as predictions do."""
    return bool(values) and all(parse_flag(v) is None and v in labels for v in values or ())


def _check_columns(row: Row, field: str, value: dict[str, Any], labels: Sequence[str]) -> None:
    if labels and set(map(str, value)) != set(labels):
        raise DataError(
            f"{row.location}: {field!r} has values for {listed(value)}, where {listed(labels)} are expected"
        )


def _one_or_all(row: Row, field: str, labels: tuple[str, ...], is_multi_label: bool | None) -> Target:
    """Return the labels that apply; with one label a row the only one."""
    if is_multi_label is not False:
        return labels
    if len(labels) != 1:
        raise DataError(
            f"{row.location}: {field!r} has {len(labels)} labels that apply ({listed(labels)}), "
            "where options.problem_type=single_label needs exactly one"
        )
    return labels[0]


class LabelReader(RowReader):
    """Reads the rows of one pass, whose labels must be of one form.

    The first label of the pass decides. With problem type `auto`: where it is a list, all rows have several
    labels. Where it is a list with a 0 or 1 for each label, or a mapping, all rows write it so. Within a file
    single labels must be all text, or all numbers.

    Args:
        task: the task before or after `fit`.
    """

    def __init__(self, task: Classify) -> None:
        super().__init__(task)
        self._decided_task = task
        self._is_fitted = self._is_decided = bool(task.labels)
        self._first = "the training rows"
        self._label_types = LabelTypeCheck()
        self._list_texts: list[str] = []
        self._repeats: list[str] = []
        self._counts = {"list texts": 0, "repeats": 0}

    def read(self, row: Row) -> Example:
        """Return the texts of a row, and its label or a tuple of its labels.

        Raises:
            DataError: the row cannot be used, or its label is of another form than those before it.
            ConfigError: `data.labels` does not fit the labels of the first row.
        """
        target = self.task.columns.target
        value = row.fields.get(target)
        if not self._is_decided and not is_missing(value):
            self._decide(row, value)
        self._check_mapping(row, value)
        example = self._decided_task.read(row)
        if example.target is None:
            return example
        is_multi_label = isinstance(example.target, tuple)
        if self._decided_task.is_multi_label is None:
            self._decided_task = self._decided_task.with_problem_type(
                is_multi_label=is_multi_label, reason=self._reason(value, is_multi_label=is_multi_label)
            )
        if is_multi_label:
            self._check_list(row, value, example.target)
        # A task of your own may change the label; what it makes of mixed types is its own matter.
        elif example.target == format_label(value):
            self._check_text(row, value)
            self._label_types.check(row, target)
        return example

    def _check_mapping(self, row: Row, value: Any) -> None:
        """Refuse a value for each label where other rows name their labels."""
        task: Any = self._decided_task
        if isinstance(value, dict) and not task.is_multi_hot and set(map(str, value)) != set(task.labels):
            raise DataError(
                f"{row.location}: {task.columns.target!r} has a value for each of {listed(value)}, but "
                f"{self._first} names the labels; write all labels the same way"
            )

    def _reason(self, value: Any, *, is_multi_label: bool) -> str:
        """Return why rows have several labels, or one."""
        if self._decided_task.is_multi_hot:
            return "since the labels are a 0 or 1 for each label"
        if is_multi_label and isinstance(value, str):
            return "since the labels are lists, written as text"
        return f"since the labels are {'lists' if is_multi_label else 'single values'}"

    def _decide(self, row: Row, value: Any) -> None:
        """Learn from the first label whether the rows write a 0 or 1 for each label."""
        self._is_decided = True
        self._first = str(row.location)
        task, data = self._decided_task, self.task.data
        if isinstance(value, dict):
            names = self._names_of_columns(tuple(map(str, value)))
            self._decided_task = task.with_multi_hot(names)
            return
        stays_text = isinstance(value, str) and task.is_multi_label is False
        values = None if stays_text else get_label_list(value, data.label_delimiter)
        if values is None or len(values) < 2 or not all_flags(values):
            return
        given = read_labels(data.labels)
        is_named = given is not None and len(given) == len(values) and not any(map(_is_flag, given))
        if not (is_named or len(values) > 2 or is_multi_hot(values) or self._are_flag_pairs(row)):
            return
        if given is not None and len(given) != len(values):
            raise ConfigError(
                f"data.labels names {len(given)} labels, but at {self._first} there is a list of "
                f"{len(values)} values 0 or 1; name one label for each: {listed(given)}"
            )
        names = given or tuple(map(str, range(len(values))))
        self._decided_task = task.with_multi_hot(names)

    def _names_of_columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns of the labels, in the order of `data.labels`."""
        given = read_labels(self.task.data.labels)
        if given is None:
            return columns
        found = find_labels(given, columns, "data.labels")
        if len(found) != len(given) or len(given) != len(columns):
            raise ConfigError(
                f"data.labels must name the columns of the labels, {listed(columns)}, got {listed(given)}; "
                "leave it out to take their names"
            )
        return tuple(found[name] for name in given)

    def _are_flag_pairs(self, row: Row) -> bool:
        """Tell whether all lists of the file are two numbers 0 or 1, and not always the same two labels."""
        source, data = row.location.source, self.task.data
        field, seen = self.task.columns.target, set()
        if source == "-":
            return False
        options = ReadOptions(source, data, self.task.columns, BadRows(skip=True), lambda _: None)
        try:
            for other in itertools.islice(open_rows(options), MOST_PAIRS):
                value = other.fields.get(field)
                if is_missing(value):
                    continue
                values = get_label_list(value, data.label_delimiter)
                if values is None or len(values) != 2 or not all_flags(values):
                    return False
                if is_multi_hot(values):
                    return True
                seen.add(parse_flag(values[0]))
        except DataError:  # rows that are no file, or one that the pass itself refuses
            return False
        return len(seen) > 1

    def _check_list(self, row: Row, value: Any, labels: tuple[str, ...]) -> None:
        """Count lists that are text, and lists that name a label twice; refuse those of 0 and 1."""
        task = self._decided_task
        values = get_label_list(value, task.data.label_delimiter)
        if values is None:
            return
        if isinstance(value, str) and parse_list_text(value) is not None:
            self._count("list texts", self._list_texts, row, value)
        if task.is_multi_hot or len(values) == len(labels):
            return
        if len(values) > 2 and all_flags(values):
            raise DataError(
                f"{row.location}: {task.columns.target!r} has a 0 or 1 for each label "
                f"({str(value)[:40]}), but {self._first} names the labels; write all labels the same way"
            )
        if sum(format_label(v) != "" for v in values) > len(labels):
            self._count("repeats", self._repeats, row, value)

    def _check_text(self, row: Row, value: Any) -> None:
        """Refuse a list that is text beside single labels."""
        if self.task.options.problem_type != "auto" or self._is_fitted or not isinstance(value, str):
            return
        items = parse_list_text(value)
        if items and (len(items) > 1 or isinstance(items[0], str)):
            raise DataError(
                f"{row.location}: the label is a list written as text ({value[:40]!r}), but a single label "
                f"at {self._first}; for several labels a row set options.problem_type=multi_label, to keep "
                "the text set options.problem_type=single_label"
            )

    def _count(self, kind: str, examples: list[str], row: Row, value: Any) -> None:
        self._counts[kind] += 1
        if not examples:
            examples.append(f"{str(value)[:40]} at {row.location}")

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Let the task learn from the training rows, and from the form of their labels."""
        decided = self._decided_task
        task: Classify = self.task  # type: ignore[assignment]
        if decided is not task:
            task.adopt_label_form(decided)
        if task.is_multi_hot:
            is_numbered = task.labels == tuple(map(str, range(len(task.labels))))
            hint = "; data.labels=[...] gives them names" if is_numbered else ""
            note(
                f"{self._first}: the labels are a 0 or 1 for each of {len(task.labels)} labels: "
                f"{listed(task.labels)}{hint}"
            )
        for line in self.report():
            note(line)
        super().fit(examples, note)
        could_be_single = task.options.problem_type == "auto" and task.data.label_delimiter is None
        if (
            task.is_multi_hot
            and could_be_single
            and not self._list_texts
            and all(len(e.target) == 1 for e in examples)
        ):
            note(
                "every row has exactly one label that applies; for exactly one label a row set "
                "options.problem_type=single_label"
            )

    def report(self) -> list[str]:
        """Return lines about lists that are text, and lists that name a label twice."""
        lines = []
        if self._counts["list texts"]:
            lines.append(
                f"{self._counts['list texts']} rows have their labels as a list written as text, read as a "
                f"list: {self._list_texts[0]}"
            )
        if self._counts["repeats"]:
            lines.append(
                f"{self._counts['repeats']} rows name a label twice, which counts once: {self._repeats[0]}"
            )
        self._counts = dict.fromkeys(self._counts, 0)
        return lines


def _is_flag(label: str) -> bool:
    return parse_flag(label) is not None


def suspicious_labels(counts: Counter[str], *, is_multi_label: bool) -> str:
    """Return what to say where labels look like numbers to predict, like texts, or like several labels.

    Args:
        counts: how many rows have each label.
        is_multi_label: whether rows have several labels.
    """
    if sum(map(_is_fraction, counts)) > len(counts) / 2:
        shown = listed(sort_labels(counts), 3)
        if is_multi_label:
            return (
                f"the labels are lists of measured numbers ({shown}), each taken as the name of a label; "
                "write 0 or 1 for each label, or the names of those that apply"
            )
        return (
            f"the {len(counts)} labels look like measured numbers ({shown}); "
            "to predict a number use task regress"
        )
    joined = "" if is_multi_label else _joined_labels(counts)
    if joined:
        return joined
    if len(counts) > 50 and len(counts) > sum(counts.values()) / 5:
        return (
            f"{len(counts)} labels for {sum(counts.values())} rows; is the label in another column? "
            "(data.columns)"
        )
    return ""


def _is_fraction(label: str) -> bool:
    try:
        return not float(label).is_integer()
    except (ValueError, OverflowError):
        return False


def _joined_labels(labels: Collection[str]) -> str:
    """Return advice where labels are several labels with a delimiter: "late|damaged" beside "late"."""
    for delimiter, name in (("|", "pipe"), (",", "comma"), (";", "semicolon"), (" ", "blank")):
        joined = [label for label in labels if delimiter in label]
        parts = [[part.strip() for part in label.split(delimiter)] for label in joined]
        if not joined:
            continue
        are_flags = len(joined) == len(labels) and len({len(p) for p in parts}) == 1
        are_flags = are_flags and all(part in {"0", "1"} for label in parts for part in label)
        are_labels = delimiter != " " and all(part in labels for label in parts for part in label)
        if are_flags or are_labels:
            what = "a 0 or 1 for each label" if are_flags else "several labels"
            return (
                f"labels such as {joined[0]!r} look like {what}; if they are, set data.label_delimiter={name}"
            )
    return ""
