"""Reads rows of texts that belong together, and notices what no single row shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bertune.data.columns import ColumnMapping
from bertune.data.list_text import parse_list_text
from bertune.errors import DataError, listed
from bertune.tasks.base.pair_labels import relatedness
from bertune.tasks.base.row_reader import RowReader
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Note
from bertune.tasks.base.unused_texts import UnusedTexts
from bertune.types import Example, Location, Row


class RelatedReader(RowReader):
    """Reads rows; notices texts of the training file that no field has, and lists that are written as text.

    Args:
        task: says what a row means.
    """

    def __init__(self, task: SentenceTask) -> None:
        super().__init__(task)
        self.task: SentenceTask = task
        self._mappings: list[ColumnMapping] = []  # of each file
        self._unused: UnusedTexts | None = None  # of the first file
        self._first_list: Location | None = None  # that was written as text
        self._num_lists = 0
        self._words: set[str] = set()  # labels that are words

    def see_columns(self, mapping: ColumnMapping) -> None:
        """Remember which columns of a file are read."""
        self._mappings.append(mapping)
        self._unused = self._unused or UnusedTexts(mapping)

    def read(self, row: Row) -> Example:
        """Return what a row means; lists may be written as text, as in csv files."""
        if self._unused is not None and len(self._mappings) == 1:
            self._unused.look_at(row)
        fields = _parse_lists(row.fields, self.task.columns.target)
        if fields != row.fields:
            self._first_list = self._first_list or row.location
            self._num_lists += 1
            row = replace(row, fields=fields)
        example = super().read(row)
        if isinstance(example.target, str):
            self._words.add(example.target)
        return example

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Let the task learn from the training rows, unless texts in them would go unread.

        Raises:
            DataError: rows are single texts, and another column holds texts too.
        """
        if self._unused is not None:
            self.task.learn_columns(self._unused.mapping)
            if self.task.data.columns is None:
                self._check_unused(self._unused, examples, note)
        for line in self.report():
            note(line)
        super().fit(examples, note)

    def _check_unused(self, unused: UnusedTexts, examples: Sequence[Example], note: Note) -> None:
        source = examples[0].location.source
        if len(examples[0].texts) == 1:
            advice = unused.advice_for_single_texts()
            if advice and not unused.are_short():
                raise DataError(f"{source}: {advice}")
            if advice:
                note(f"{source}: {advice}")
            return
        advice = unused.advice_for_pairs()
        if advice:
            note(f"{source}: {advice}")
        if unused.has("prompt"):
            note("column 'prompt' is not used: options.prompts are the prompts of all rows")
        if any("text_b" not in mapping for mapping in self._mappings):
            note(
                "training rows are pairs, but rows to score are single texts: their score, uniformity, says "
                "nothing about what pairs have in common; name the second text in data.columns"
            )

    def report(self) -> list[str]:
        """Return what labels in words mean, and how many rows had lists as text, since the last call."""
        lines = []
        words, self._words = sorted(self._words), set()
        if words:
            related = [word for word in words if relatedness(word)]
            others = [word for word in words if word not in related]
            parts = [f"{listed(related)} that they do"] if related else []
            parts += [f"{listed(others)} that they do not"] if others else []
            lines.append(f"labels say whether texts belong together: {', '.join(parts)}")
        count, self._num_lists = self._num_lists, 0
        if count:
            lines.append(
                f"lists written as text are read as lists ({count} rows, such as {self._first_list})"
            )
        return lines


def _parse_lists(fields: dict[str, Any], target: str) -> dict[str, Any]:
    """Return fields with lists where a text writes one: a list of texts, and beside it a list of labels."""
    parsed = dict(fields)
    for field in ("text_b", "negative"):
        texts = _list_of(fields.get(field))
        if texts is not None and all(isinstance(text, str) for text in texts):
            parsed[field] = texts
    if isinstance(parsed.get("text_b"), list):
        labels = _list_of(fields.get(target))
        if labels is not None:
            parsed[target] = labels
    return parsed


def _list_of(value: Any) -> list[Any] | None:
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "array(", "np.array(")):
        return None
    return parse_list_text(value)
