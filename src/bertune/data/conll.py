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
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertune.data.conll_layout import (
    MANY_CONLL2012_COLUMNS,
    ConllLayout,
    detect_layout,
    ends_document,
    foreign_format,
    halves,
    is_blank,
    is_comment,
    is_word_part,
    split_cells,
)
from bertune.data.records import ReadOptions, Record
from bertune.errors import DataError

_HEAD_LINES = 200
"""Lines that decide the layout of a file."""
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")
"""Words that usually end a sentence."""
_CLOSING = frozenset(("''", '"', "”", "’", ")", "]", "」", "』", "）", "》", "-RRB-"))
_INNER_TAG = re.compile(r"[IMEL][-_]")
MANY_WORDS = 100
"""Words above which the only sentence of a file seems to be many."""
_LONG_MEAN = 512
"""Words above which the mean sentence of a file seems to be many."""


@dataclass(frozen=True)
class Sentence:
    """The columns of a sentence, words among them; or an error in one of its lines."""

    line: int
    columns: tuple[tuple[str, ...], ...] = ()
    error: str = ""
    stride: int = 1
    """Lines from one word to the next; 0 where lines that are no words stand between them."""


def read_sentences(
    text: Iterable[str],
    skipped: dict[str, int],
    delimiter: str | None = None,
    sentence_ends: Collection[str] = (),
) -> tuple[ConllLayout, Iterator[Sentence]]:
    """Return the layout of a file, and its sentences, each with the line of its first word.

    Args:
        text: the lines of a file.
        skipped: counts lines that belong to no sentence, by kind, while the iterator runs.
        delimiter: what separates columns; None for tabs or blanks, as the file shows.
        sentence_ends: words that end a sentence, besides blank lines.
    """
    lines = iter(text)
    head = list(itertools.islice(lines, _HEAD_LINES))
    layout = detect_layout(head, delimiter)
    numbered = enumerate(itertools.chain(head, lines), 1)
    if layout.sentence_per_line:
        return layout, _sentence_lines(numbered, layout, skipped)
    words = _word_lines(numbered, layout, skipped)
    return layout, _assemble(words, layout, sentence_ends)


def _sentence_lines(
    lines: Iterable[tuple[int, str]], layout: ConllLayout, skipped: dict[str, int]
) -> Iterator[Sentence]:
    """Yield one sentence a line: words, a tab, tags."""
    follows_comment = True
    for number, line in lines:
        if is_blank(line):
            _count(skipped, "blank lines")
            continue
        found = halves(line, layout)
        if len(found) == 2:
            yield Sentence(number, tuple(found), stride=0)
        elif follows_comment and is_comment(line, layout, follows_comment=True):
            _count(skipped, "comments")
            continue
        else:
            error = "columns where 2 are expected (words, a tab, their tags, divided by blanks)"
            yield Sentence(number, error=f"{len(found)} {error}")


def _count(skipped: dict[str, int], kind: str) -> None:
    skipped[kind] = skipped.get(kind, 0) + 1


_Line = tuple[int, list[str] | None, str]
"""Number of a line, its cells (None between sentences), and what is wrong with it."""


def _word_lines(
    lines: Iterable[tuple[int, str]], layout: ConllLayout, skipped: dict[str, int]
) -> Iterator[_Line]:
    """Yield the words of a file, and where sentences end; comments are counted."""
    in_sentence, follows_comment, has_header = False, True, layout.has_header
    for number, line in lines:
        if is_blank(line) or ends_document(line):
            if not is_blank(line):
                _count(skipped, "-DOCSTART- lines" if line[0] == "-" else "comments")
            in_sentence = False
            yield number, None, ""
            continue
        if not in_sentence and is_comment(line, layout, follows_comment=follows_comment):
            _count(skipped, "comments")
            follows_comment = True
            continue
        in_sentence, follows_comment = True, False
        if has_header:
            has_header = in_sentence = False
            continue
        cells = split_cells(line.rstrip("\r\n"), layout)
        if not layout.tab_separated and len(cells) == layout.num_columns - 1 and line[0] in " \t":
            cells = [" ", *cells]  # the word is itself a blank
        if is_word_part(cells, layout):
            _count(skipped, "lines of joined or empty words")
        elif len(cells) != layout.num_columns:
            yield number, [], _wrong_count_message(cells, layout)
        else:
            yield number, cells, ""


def _assemble(
    lines: Iterable[_Line], layout: ConllLayout, sentence_ends: Collection[str]
) -> Iterator[Sentence]:
    """Yield sentences of words; after an error, skip the rest of its sentence."""
    word_column = _word_column(layout)
    words: list[list[str]] = []
    first = last = 0  # lines of the words so far
    has_error = may_end = False
    for number, cells, error in itertools.chain(lines, [(0, None, "")]):
        if cells and may_end and not _goes_on(cells, word_column):
            yield _sentence(first, last, words)
            words = []
        begins_anew = layout.counts_words and cells and words and cells[0] == words[0][0]
        if cells is None or layout.has_rows or begins_anew:
            if words and not has_error:
                yield _sentence(first, last, words)
            words, has_error, may_end = [], False, False
        if error:
            yield Sentence(number, error=error)
            has_error, may_end = True, False
        elif cells:
            first, last = first if words else number, number
            words.append(cells)
            ended = may_end if words[1:] and cells[word_column] in _CLOSING else False
            may_end = not has_error and (ended or cells[word_column] in sentence_ends)


def _sentence(first: int, last: int, words: Sequence[Sequence[str]]) -> Sentence:
    """Return the sentence of some words, which stand on lines from the first to the last."""
    columns = tuple(zip(*words, strict=True))
    return Sentence(first, columns, stride=int(last - first == len(words) - 1))


def _word_column(layout: ConllLayout) -> int:
    """Return which column has the words, as far as the file shows it."""
    names = [name for name in ("words", "form", "word", "token", "text") if name in layout.names]
    return layout.names.index(names[0]) if names else 0


def _goes_on(cells: Sequence[str], word_column: int) -> bool:
    """Tell whether a word belongs to the sentence that has just ended: in an entity, or a closing mark."""
    return bool(_INNER_TAG.match(cells[-1])) or cells[word_column] in _CLOSING


def _wrong_count_message(cells: Sequence[str], layout: ConllLayout) -> str:
    separator = "tabs" if layout.tab_separated else "blanks"
    separator = repr(layout.delimiter) if layout.delimiter else separator
    return (
        f"{len(cells)} columns divided by {separator} where {layout.num_columns} are expected; "
        "its sentence cannot be used without this word"
    )


def columns_by_name(sentence: Sentence, names: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a sentence by name, each a list with one value a word."""
    return {name: list(column) for name, column in zip(names, sentence.columns, strict=True)}


def column_names(
    layout: ConllLayout,
    given: Sequence[str] | Mapping[str, str | list[str]] | None,
    source: str,
    *,
    require_target: bool,
) -> list[str]:
    """Return the names of the columns.

    Without names in `given` or in the file, the first column is `words`, the last `tags`, the others
    `column_2` and so on. A mapping may use these names too, where the file has others.

    Args:
        layout: the layout of the file.
        given: data.columns.
        source: the file, for messages.
        require_target: whether the last of the given names must have a column.

    Raises:
        DataError: the number of given names is not the number of columns.
    """
    if given is not None and not isinstance(given, Mapping):
        if not require_target and len(given) == layout.num_columns + 1:
            given = given[:-1]
        if len(given) != layout.num_columns:
            raise DataError(
                f"{source}: {layout.num_columns} columns, but data.columns names {len(given)}: "
                f"{', '.join(given)}"
            )
        return [f"column_{number}" if name == "_" else name for number, name in enumerate(given, 1)]
    usual = ["words", *(f"column_{number}" for number in range(2, layout.num_columns)), "tags"]
    usual = usual if layout.num_columns > 1 else ["words"] * layout.num_columns
    mapped = {name for name in (given or {}).values() if isinstance(name, str)}
    uses_usual = mapped <= {*usual} and not mapped <= {*layout.names}
    return usual if not layout.names or uses_usual else [*layout.names]


def read_conll(options: ReadOptions, text: Iterable[str]) -> Iterator[Record]:
    """Yield the records of a file in columns: one a sentence, or one a word where a column numbers sentences.

    Raises:
        DataError: the file has another form.
    """
    source, settings = options.source, options.settings
    lines = iter(text)
    first = next(lines, "")
    foreign = foreign_format(first)
    if foreign:
        raise DataError(f"{source}: is {foreign}")
    skipped: dict[str, int] = {}
    sentence_ends = settings.sentence_ends or ()
    layout, sentences = read_sentences(
        itertools.chain([first], lines) if first else [], skipped, settings.delimiter, sentence_ends
    )
    _refuse_layout(options, layout, first)
    names = column_names(layout, settings.columns, source, require_target=options.require_target)
    if layout.note and names == [*layout.names]:
        options.note(f"{source}: {layout.note}")
    hint = "" if options.require_target else "; if the file holds a text a line, set data.format=lines"
    lengths = _Lengths(_word_column(layout))
    for sentence in sentences:
        if sentence.error:
            options.bad_rows(f"{source}:{sentence.line}: {sentence.error}{hint}")
        elif layout.has_rows:
            yield Record(sentence.line, {n: c[0] for n, c in zip(names, sentence.columns, strict=True)})
        else:
            lengths.add(sentence)
            yield Record(sentence.line, columns_by_name(sentence, names), sentence.stride)
    if skipped:
        counts = ", ".join(f"{count} {kind}" for kind, count in skipped.items())
        options.note(f"{source}: {counts} skipped")
    if settings.sentence_ends is None and not layout.sentence_per_line:
        for line in lengths.describe(source):
            options.note(line)


def _refuse_layout(options: ReadOptions, layout: ConllLayout, first: str) -> None:
    """Refuse files whose columns cannot be told apart, or are of another kind.

    Raises:
        DataError: what the file has, and what to set.
    """
    source = options.source
    if layout.num_columns >= MANY_CONLL2012_COLUMNS and re.match(r"#\s*begin document", first):
        raise DataError(
            f"{source}: is laid out as CoNLL-2012, whose entities are in brackets, such as (PERSON* and *); "
            "write a tag for each word, such as B-PERSON, and leave out the lines '#begin document'"
        )
    if options.settings.quoting != "auto":
        options.note(f"{source}: data.quoting has no effect on words in columns")
    if layout.num_columns != 1:
        return
    if options.settings.delimiter is not None and options.require_target:
        raise DataError(
            f"{source}: has one column where data.delimiter={options.settings.delimiter!r} divides columns; "
            "leave data.delimiter out, or set the character that divides word and tag"
        )
    hint = _delimiter_hint(first) if options.settings.delimiter is None else ""
    if hint and options.require_target:
        raise DataError(f"{source}: has one column; the lines hold {hint}")
    if not options.require_target and options.settings.format == "auto":
        raise DataError(
            f"{source}: has one column; say whether it holds a word a line (data.format=conll) or a text a "
            f"line (data.format=lines){f'; or, since the lines hold {hint}' if hint else ''}"
        )


def _delimiter_hint(line: str) -> str:
    """Return which delimiter a line of one cell holds, and what to set; "" where it holds none."""
    names = {",": ("commas", "comma"), ";": ("semicolons", "semicolon"), "|": ("bars", "pipe")}
    found = next((names[character] for character in names if character in line.strip()[1:]), None)
    return f"{found[0]}: set data.delimiter={found[1]}" if found else ""


class _Lengths:
    """Counts words and sentences of a file, to notice one without blank lines between sentences."""

    def __init__(self, word_column: int) -> None:
        self._word_column = word_column
        self._num_sentences = self._num_words = 0
        self._ends: Counter[str] = Counter()

    def add(self, sentence: Sentence) -> None:
        """Count a sentence."""
        words = sentence.columns[self._word_column]
        self._num_sentences += 1
        self._num_words += len(words)
        self._ends.update(word for word in words if word in SENTENCE_ENDS)

    def describe(self, source: str) -> list[str]:
        """Return a line about sentences that seem to hold many, or nothing."""
        num_words, num_sentences, num_ends = self._num_words, self._num_sentences, self._ends.total()
        is_one = num_sentences == 1 and num_words > MANY_WORDS
        if not is_one and (num_words <= _LONG_MEAN * num_sentences or num_ends < 2 * num_sentences):
            return []
        what = (
            f"all {num_words} words are one sentence: no blank line divides them"
            if num_sentences == 1
            else f"{num_sentences} sentences have {num_words} words, {num_words // num_sentences} each"
        )
        ends = f", {num_ends} of its words usually end one" if num_ends else ""
        return [f"{source}: {what}{ends}; {cut_advice(self._ends)}"]


def ends_setting(words: Collection[str]) -> str:
    """Return the setting that cuts after those of the words that usually end a sentence.

    >>> ends_setting(["来", "。"])
    'data.sentence_ends=["。"]'
    """
    found = [end for end in SENTENCE_ENDS if end in words] or [".", "?", "!"]
    return f"data.sentence_ends=[{','.join(f'{chr(34)}{end}{chr(34)}' for end in found)}]"


def cut_advice(words: Collection[str]) -> str:
    """Return what to do about sentences that are not divided, given the words in them."""
    return (
        f"put a blank line after each sentence, or cut after some words: {ends_setting(words)} "
        "(data.sentence_ends=[] reads long texts as they are)"
    )
