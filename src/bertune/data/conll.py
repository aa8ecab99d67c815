"""Sentences in columns: CoNLL files, Chinese character files (.bmes), and those with a sentence a line.

    EU      NNP  B-ORG          高 B-NAME        高 勇 ：<TAB>B-NAME E-NAME O
    rejects VBZ  O              勇 E-NAME
                                ： O
    Peter   NNP  B-PER

One word a line in any number of columns, a line without anything but blanks and tabs between sentences; or one sentence a line: words,
a tab, tags. Which of the two, and what stands between columns, is told by the first lines.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bertune.errors import DataError

_BLANKS = re.compile("[ \t]+")  # not str.split(): an ideographic space can be a word
_LOOKED_AT = 50
"""Lines that tell the form of a file."""


@dataclass(frozen=True)
class Sentence:
    """Words, and the other columns beside them; or what is wrong with a line."""

    line: int
    columns: tuple[tuple[str, ...], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class ConllLayout:
    """How a file is laid out."""

    tab_separated: bool
    """Whether tabs stand between columns; else any number of blanks and tabs."""
    sentence_per_line: bool
    num_columns: int


def is_blank(line: str) -> bool:
    """Tell whether a line ends a sentence."""
    return not line.strip(" \t\r\n")


def _is_comment(line: str) -> bool:
    """Tell whether a line that begins a sentence is a comment of CoNLL-U, `# sent_id = 1`, or of MultiCoNER, `# id 1`."""
    return bool(re.match(r"# ?\S+ = |# id ", line))


def detect_layout(lines: Sequence[str]) -> ConllLayout:
    """Tell the form of a file from its first lines.

    >>> detect_layout(["EU NNP B-ORG", "rejects VBZ O"])
    ConllLayout(tab_separated=False, sentence_per_line=False, num_columns=3)
    >>> detect_layout(["高 勇" + chr(9) + "B-NAME E-NAME"]).sentence_per_line
    True
    """
    full = [line.rstrip("\r\n") for line in lines if not is_blank(line) and not line.startswith("-DOCSTART-")]
    full = [line for line in full if not _is_comment(line)] or full
    if not full:
        return ConllLayout(False, False, 0)
    halves = [_halves(line) for line in full]
    both = [h for h in halves if len(h) == 2 and len(h[0]) == len(h[1])]
    if len(both) * 2 > len(full) and any(len(h[1]) > 1 for h in both):
        return ConllLayout(True, True, 2)
    tab = sum("\t" in line for line in full) * 2 > len(full)
    widths = [len(_cells(line, tab)) for line in full]
    return ConllLayout(tab, False, max(set(widths), key=lambda width: (widths.count(width), width)))


def _halves(line: str) -> list[tuple[str, ...]]:
    """Cut a line at its tabs, and each part at its blanks."""
    return [tuple(half.strip(" ").split(" ")) for half in line.rstrip("\r\n").split("\t")]


def _cells(line: str, tab: bool) -> list[str]:
    if tab:
        return line.split("\t")
    return [cell for cell in _BLANKS.split(line) if cell]


def read_sentences(text: Iterable[str], skipped: dict[str, int]) -> tuple[ConllLayout, Iterator[Sentence]]:
    """Return the form of a file, and its sentences, each with the line of its first word.

    Args:
        text: the lines of a file.
        skipped: counts what is no sentence, by what it is, while the iterator runs.
    """
    lines = iter(text)
    head = list(itertools.islice(lines, _LOOKED_AT))
    form = detect_layout(head)
    every = enumerate(itertools.chain(head, lines), 1)
    return form, _sentence_lines(every, skipped) if form.sentence_per_line else _word_lines(
        every, form, skipped
    )


def _sentence_lines(lines: Iterable[tuple[int, str]], skipped: dict[str, int]) -> Iterator[Sentence]:
    for number, line in lines:
        if is_blank(line):
            skipped["blank lines"] = skipped.get("blank lines", 0) + 1
            continue
        halves = _halves(line)
        if len(halves) != 2:
            yield Sentence(
                number,
                error=f"{len(halves)} columns where 2 are expected (words, a tab, their tags, divided by blanks)",
            )
            continue
        yield Sentence(number, tuple(halves))


def _word_lines(
    lines: Iterable[tuple[int, str]], form: ConllLayout, skipped: dict[str, int]
) -> Iterator[Sentence]:
    held: list[list[str]] = []
    first, faulty = 0, False
    for number, line in itertools.chain(lines, [(0, "")]):
        new_document = line.startswith("-DOCSTART-")
        if is_blank(line) or new_document:
            if held and not faulty:
                yield Sentence(first, tuple(zip(*held, strict=True)))
            held, faulty = [], False
        passed_over = (
            "-DOCSTART- lines"
            if new_document
            else "comments"
            if not held and not faulty and _is_comment(line)
            else ""
        )
        if passed_over:
            skipped[passed_over] = skipped.get(passed_over, 0) + 1
        if passed_over or is_blank(line):
            continue
        cells = _cells(line.rstrip("\r\n"), form.tab_separated)
        if not form.tab_separated and len(cells) == form.num_columns - 1 and line[0] in " \t":
            cells = [" ", *cells]  # the word is itself a blank
        if len(cells) != form.num_columns:
            yield Sentence(number, error=_wrong_width(cells, form))
            faulty = True  # the rest of a sentence that lacks a word is not the sentence
            continue
        first = first if held else number
        held.append(cells)


def _wrong_width(cells: Sequence[str], form: ConllLayout) -> str:
    between = "tabs" if form.tab_separated else "blanks"
    return f"{len(cells)} columns divided by {between} where {form.num_columns} are expected; its sentence cannot be used without this word"


def columns_by_name(sentence: Sentence, names: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a sentence by name, each a list with one value a word."""
    return {name: list(column) for name, column in zip(names, sentence.columns, strict=True)}


def column_names(
    form: ConllLayout, given: Sequence[str] | None, source: str, *, require_target: bool
) -> list[str]:
    """Return the names of the columns: as given, else `words` first and `tags` last, with `column_2` and so on between.

    Raises:
        DataError: as many names as columns are needed.
    """
    if given is not None:
        if not require_target and len(given) == form.num_columns + 1:
            given = given[:-1]
        if len(given) != form.num_columns:
            raise DataError(
                f"{source}: {form.num_columns} columns, but data.columns names {len(given)}: {', '.join(given)}"
            )
        return [f"column_{place}" if name == "_" else name for place, name in enumerate(given, 1)]
    if form.num_columns < 2:
        return ["words"] * form.num_columns
    return ["words", *(f"column_{place}" for place in range(2, form.num_columns)), "tags"]
