"""What a pass over files shows about tags: their scheme, what a word is, and what was mended in spans."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from bertune.config.schema import DataConfig
from bertune.data.conll import MANY_WORDS, cut_advice
from bertune.data.entities import count_trimmed, get_tags, parse_tags
from bertune.data.tags import Scheme, Tag, TagCounts
from bertune.errors import DataError
from bertune.tasks.base.row_reader import RowReader
from bertune.tasks.base.task import Note
from bertune.types import Example, Row

if TYPE_CHECKING:
    from bertune.tasks.base.task import Task


class _TagTask(Protocol):
    """What the reader needs of its task."""

    scheme: Scheme

    def tag_names(self) -> tuple[str, ...]: ...

    def fit_files(self, tag_counts: TagCounts, single_character: Counter[bool], note: Note) -> None: ...


class TagReader(RowReader):
    """Reads the rows of one pass, and counts the tags of its files and the words of its rows.

    Args:
        task: the task before or after `fit`.
        tag_task: the same task.
    """

    def __init__(self, task: Task, tag_task: _TagTask) -> None:
        super().__init__(task)
        self._tag_task = tag_task
        self._tag_counts: dict[str, TagCounts] = {}  # by file
        self._single_character: Counter[bool] = Counter()  # words of rows that define their words
        self._trimmed: Counter[str] = Counter()  # spans with blanks at their edges, by file
        self._numbered: dict[str, None] = {}  # files whose tags are numbers
        self._first_tag: tuple[str, str] | None = None  # that is not O, and where it is

    def read(self, row: Row) -> Example:
        """Return the text of a row, its words and its entities.

        Raises:
            DataError: the row cannot be used, or its tags have types and those of earlier rows have none.
        """
        example = super().read(row)
        target, text, words = self.task.columns.target, example.texts[0], example.words or ()
        tags = parsed = None
        with contextlib.suppress(DataError):  # a task of your own may rewrite other tags
            tags = get_tags(row, target, self._tag_task.tag_names)
            parsed = tags and parse_tags(row, target, tags, text, words, self._tag_task.scheme)
            self._trimmed[row.location.source] += count_trimmed(row, target, text, words)
        if tags and parsed:
            self._count_tags(row, tags, parsed)
        if tags is not None or isinstance(row.fields.get("text"), list | tuple):
            self._single_character.update(end - start == 1 for start, end in words)
        return example

    def _count_tags(self, row: Row, tags: Sequence[str], parsed: Sequence[Tag]) -> None:
        source = row.location.source
        if tags != get_tags(row, self.task.columns.target):
            self._numbered[source] = None
        if self._tag_task.scheme not in {"io", "none"}:
            self._check_types(row, tags)
        self._tag_counts.setdefault(source, TagCounts()).add(tags, parsed, str(row.location))

    def _check_types(self, row: Row, tags: Sequence[str]) -> None:
        """Refuse a tag without a type beside tags with types: it is a slip of the pen."""
        for number, tag in enumerate(tags):
            if tag == "O":
                continue
            location = str(row.location.at_word(number))
            first, there = self._first_tag = self._first_tag or (tag, location)
            if (len(tag) == 1) != (len(first) == 1):
                one, other = ("no type", "has one") if len(tag) == 1 else ("a type", "has none")
                raise DataError(
                    f"{location}: the tag {tag!r} has {one}, and {first!r} at {there} {other}; write a type "
                    "in every tag, such as B-PER, or in none"
                )

    def fit(self, examples: Sequence[Example], note: Note) -> None:
        """Let the task learn types, scheme and unit from the training rows and their files."""
        super().fit(examples, note)
        counts = self._tag_counts.get(examples[0].location.source, TagCounts())
        for line in self.report():
            note(line)
        self._tag_task.fit_files(counts, self._single_character, note)

    def report(self) -> list[str]:
        """Return the scheme of each file that has tags, and what was mended."""
        tag_counts, self._tag_counts = self._tag_counts, {}
        trimmed, self._trimmed = self._trimmed, Counter()
        numbered, self._numbered = self._numbered, {}
        scheme = self._tag_task.scheme
        lines = [f"{source}: numbers as tags, named by their position in data.labels" for source in numbered]
        lines += [c.describe(source, scheme) for source, c in tag_counts.items() if c.prefixes]
        lines += [
            f"{source}: {count} spans had blanks at their edges, which are left out of them"
            for source, count in trimmed.items()
            if count
        ]
        return lines


def refuse_single_text(examples: Sequence[Example], data: DataConfig) -> None:
    """Refuse training rows that are one sentence, in a file with a word a line, without blank lines.

    Raises:
        DataError: how many words there are, and how to divide them.
    """
    first = examples[0]
    num_words = len(first.words or ())
    is_undivided = first.location.stride and num_words > MANY_WORDS and data.sentence_ends is None
    if len(examples) == 1 and is_undivided:
        words = {first.texts[0][start:end] for start, end in first.words or ()}
        raise DataError(
            f"{first.location.source}: all {num_words} words of the training rows are one sentence: no blank "
            f"line divides them; {cut_advice(words)}"
        )
