"""Sentences in columns: CoNLL files, Chinese character files (.bmes), and files with one sentence a line.

    EU      NNP  B-ORG          高 B-NAME        高 勇 ：<TAB>B-NAME E-NAME O
    rejects VBZ  O              勇 E-NAME
                                ： O
    Peter   NNP  B-PER

A file has one word a line, in any number of columns, with a blank line between sentences; or one sentence a
line: words, a tab, tags. The first lines decide which of the two it is, and what separates columns.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bertune.errors import DataError

_BLANKS = re.compile("[ \t]+")  # not str.split(): an ideographic space can be a word
DOCUMENT_START = "-DOCSTART-"
"""The beginning of a line that divides documents."""
_HEAD_LINES = 50
"""Lines that decide the layout of a file."""


@dataclass(frozen=True)
class Sentence:
    """The columns of a sentence, words among them; or an error in one of its lines."""

    line: int
    columns: tuple[tuple[str, ...], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class ConllLayout:
    """How a file is laid out."""

    tab_separated: bool
    """Whether tabs separate columns; else any number of blanks and tabs."""
    sentence_per_line: bool
    num_columns: int


def is_blank(line: str) -> bool:
    """Tell whether a line ends a sentence."""
    return not line.strip(" \t\r\n")


def _is_comment(line: str) -> bool:
    """Tell whether a first line is a comment, `# sent_id = 1` (CoNLL-U) or `# id 1` (MultiCoNER)."""
    return bool(re.match(r"# ?\S+ = |# id ", line))


def detect_layout(lines: Sequence[str]) -> ConllLayout:
    """Return the layout of a file, from its first lines.

    >>> detect_layout(["EU NNP B-ORG", "rejects VBZ O"])
    ConllLayout(tab_separated=False, sentence_per_line=False, num_columns=3)
    >>> detect_layout(["高 勇" + chr(9) + "B-NAME E-NAME"]).sentence_per_line
    True
    """
    full = [line.rstrip("\r\n") for line in lines if not is_blank(line) and not line.startswith(DOCUMENT_START)]
    full = [line for line in full if not _is_comment(line)] or full
    if not full:
        return ConllLayout(False, False, 0)
    halves = [_halves(line) for line in full]
    aligned = [h for h in halves if len(h) == 2 and len(h[0]) == len(h[1])]
    if len(aligned) * 2 > len(full) and any(len(h[1]) > 1 for h in aligned):
        return ConllLayout(True, True, 2)
    tab = sum("\t" in line for line in full) * 2 > len(full)
    counts = [len(_cells(line, tab)) for line in full]
    return ConllLayout(tab, False, max(set(counts), key=lambda count: (counts.count(count), count)))


def _halves(line: str) -> list[tuple[str, ...]]:
    """Split a line at its tabs, and each part at its blanks."""
    return [tuple(half.strip(" ").split(" ")) for half in line.rstrip("\r\n").split("\t")]


def _cells(line: str, tab: bool) -> list[str]:
    """Split a line at its tabs, or at its blanks."""
    if tab:
        return line.split("\t")
    return [cell for cell in _BLANKS.split(line) if cell]


def read_sentences(text: Iterable[str], skipped: dict[str, int]) -> tuple[ConllLayout, Iterator[Sentence]]:
    """Return the layout of a file, and its sentences, each with the line of its first word.

    Args:
        text: the lines of a file.
        skipped: counts lines that belong to no sentence, by kind, while the iterator runs.
    """
    lines = iter(text)
    head = list(itertools.islice(lines, _HEAD_LINES))
    layout = detect_layout(head)
    numbered = enumerate(itertools.chain(head, lines), 1)
    if layout.sentence_per_line:
        return layout, _sentence_lines(numbered, skipped)
    return layout, _word_lines(numbered, layout, skipped)


def _sentence_lines(lines: Iterable[tuple[int, str]], skipped: dict[str, int]) -> Iterator[Sentence]:
    """Yield one sentence a line: words, a tab, tags."""
    for number, line in lines:
        if is_blank(line):
            skipped["blank lines"] = skipped.get("blank lines", 0) + 1
            continue
        halves = _halves(line)
        if len(halves) == 2:
            yield Sentence(number, tuple(halves))
        else:
            error = "columns where 2 are expected (words, a tab, their tags, divided by blanks)"
            yield Sentence(number, error=f"{len(halves)} {error}")


def _word_lines(
    lines: Iterable[tuple[int, str]], layout: ConllLayout, skipped: dict[str, int]
) -> Iterator[Sentence]:
    """Yield sentences of one word a line; after an error, skip the rest of its sentence."""
    words: list[list[str]] = []
    first, has_error = 0, False
    for number, line in itertools.chain(lines, [(0, "")]):
        new_document = line.startswith(DOCUMENT_START)
        if is_blank(line) or new_document:
            if words and not has_error:
                yield Sentence(first, tuple(zip(*words, strict=True)))
            words, has_error = [], False
        if is_blank(line):
            continue
        comment = not words and not has_error and _is_comment(line)
        if new_document or comment:
            kind = "-DOCSTART- lines" if new_document else "comments"
            skipped[kind] = skipped.get(kind, 0) + 1
            continue
        cells = _cells(line.rstrip("\r\n"), layout.tab_separated)
        if not layout.tab_separated and len(cells) == layout.num_columns - 1 and line[0] in " \t":
            cells = [" ", *cells]  # the word is itself a blank
        if len(cells) != layout.num_columns:
            yield Sentence(number, error=_wrong_count_message(cells, layout))
            has_error = True
            continue
        first = first if words else number
        words.append(cells)


def _wrong_count_message(cells: Sequence[str], layout: ConllLayout) -> str:
    separator = "tabs" if layout.tab_separated else "blanks"
    return (
        f"{len(cells)} columns divided by {separator} where {layout.num_columns} are expected; "
        "its sentence cannot be used without this word"
    )


def columns_by_name(sentence: Sentence, names: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a sentence by name, each a list with one value a word."""
    return {name: list(column) for name, column in zip(names, sentence.columns, strict=True)}


def column_names(
    layout: ConllLayout, given: Sequence[str] | None, source: str, *, require_target: bool
) -> list[str]:
    """Return the names of the columns.

    Without names in `given`, the first column is `words`, the last `tags`, the others `column_2` and so on.

    Args:
        layout: the layout of the file.
        given: data.columns, where it is a list.
        source: the file, for messages.
        require_target: whether the last of the given names must have a column.

    Raises:
        DataError: the number of given names is not the number of columns.
    """
    if given is not None:
        if not require_target and len(given) == layout.num_columns + 1:
            given = given[:-1]
        if len(given) != layout.num_columns:
            raise DataError(
                f"{source}: {layout.num_columns} columns, but data.columns names {len(given)}: "
                f"{', '.join(given)}"
            )
        return [f"column_{number}" if name == "_" else name for number, name in enumerate(given, 1)]
    if layout.num_columns < 2:
        return ["words"] * layout.num_columns
    return ["words", *(f"column_{number}" for number in range(2, layout.num_columns)), "tags"]
