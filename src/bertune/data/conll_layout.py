"""How a file in columns is laid out: what divides cells, what columns hold, which lines are comments."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from bertune.data.columns import normalize_name
from bertune.data.tags import is_tag

DOCUMENT_START = "-DOCSTART-"
"""The beginning of a line that divides documents."""
CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""The columns of CoNLL-U."""
_BLANKS = re.compile("[ \t]+")  # not str.split(): an ideographic space can be a word
_WORD_NAMES = {"word", "words", "token", "tokens", "form", "text", "char", "character", "字", "词"}
_OTHER_NAMES = {
    "tag", "tags", "nertag", "nertags", "ner", "label", "labels", "bio", "iob", "pos", "upos", "xpos",
    "lemma", "sentenceid", "sentence#", "sentid", "sentenceidx", "sentence", "标签",
}  # fmt: skip
_NUMBER_NAMES = {"sentenceid", "sentence#", "sentid", "sentenceidx"}
_DOCUMENT_COMMENT = re.compile(r"#\s*(begin|end) document\b")
_KEYED_COMMENT = re.compile(r"# ?\S+ = |# id |# ?new(doc|par)( id\b|\s*$)")
_COLUMNS_COMMENT = re.compile(r"# ?global\.columns = (.+)")
_PART_OF_WORD = re.compile(r"\d+-\d+|\d+\.\d+")
_FOREIGN = (
    (re.compile(r"#FORMAT=WebAnno TSV"), "WebAnno TSV; export it as CoNLL 2002 instead"),
    (re.compile(r"[TRE]\d+\t\S+ \d+ \d+"), "brat standoff; convert it to JSON lines with text and spans"),
)
MANY_CONLL2012_COLUMNS = 11
"""The fewest columns of a file of CoNLL-2012."""


@dataclass(frozen=True)
class ConllLayout:
    """How a file is laid out."""

    tab_separated: bool
    """Whether tabs separate columns; else any number of blanks and tabs."""
    sentence_per_line: bool
    num_columns: int
    delimiter: str = ""
    """The character that separates columns, where it is neither tab nor blank."""
    names: tuple[str, ...] = ()
    """The names of the columns, where the file shows them; else empty."""
    has_header: bool = False
    """Whether the first line names the columns."""
    counts_words: bool = False
    """Whether the first column counts the words of each sentence."""
    has_rows: bool = False
    """Whether a column numbers the sentences, so that each line is a row of a table."""
    known_tags: frozenset[str] = field(default=frozenset(), compare=False)
    """The last cells of the first lines, if they are no tags with prefixes, such as parts of speech."""
    note: str = ""
    """What a user should know about the columns."""


def is_blank(line: str) -> bool:
    """Tell whether a line ends a sentence."""
    return not line.strip(" \t\r\n")


def ends_document(line: str) -> bool:
    """Tell whether a line stands between documents, wherever it is."""
    return line.startswith(DOCUMENT_START) or bool(_DOCUMENT_COMMENT.match(line))


def is_word_part(cells: Sequence[str], layout: ConllLayout) -> bool:
    """Tell whether a line is none of the words: `3-4` of several words, `5.1` of none (CoNLL-U)."""
    return layout.counts_words and bool(_PART_OF_WORD.fullmatch(cells[0]))


def is_comment(line: str, layout: ConllLayout, *, follows_comment: bool) -> bool:
    """Tell whether a line where a sentence may begin is a comment, and not the word # or #hashtag.

    Args:
        line: the line.
        layout: the layout of the file.
        follows_comment: whether the line before it is a comment, or there is none.
    """
    if not line.startswith("#"):
        return False
    cells = split_cells(line.rstrip("\r\n"), layout)
    fits = len(cells) == layout.num_columns
    if layout.num_columns == 1:
        return bool(_KEYED_COMMENT.match(line)) or not fits
    if layout.tab_separated and fits and _is_last_cell(cells[-1], layout):
        return False
    if _KEYED_COMMENT.match(line):
        return True
    if cells == ["#"]:
        return follows_comment
    return not _is_last_cell(cells[-1], layout, strict=not fits)


def _is_last_cell(cell: str, layout: ConllLayout, *, strict: bool = False) -> bool:
    """Tell whether a cell may be the last one of a word: a tag, or one of the other tags of the file."""
    if is_tag(cell):
        return True
    opaque = bool(layout.known_tags) and " " not in cell and "://" not in cell
    return cell in layout.known_tags or (opaque and not strict)


def foreign_format(line: str) -> str:
    """Return which format of annotations a first line shows that is not read, and what to do; else ""."""
    return next((name for pattern, name in _FOREIGN if pattern.match(line)), "")


def split_cells(line: str, layout: ConllLayout) -> list[str]:
    """Split a line at its tabs, its blanks or its delimiter.

    Tabs at either end of a line are no columns where it has more cells than the layout.
    """
    if not layout.delimiter and not layout.tab_separated:
        return [cell for cell in _BLANKS.split(line) if cell]
    if layout.delimiter:
        cells = _delimited_cells(line, layout.delimiter, layout.num_columns)
    else:
        cells = line.split("\t")
    num_columns = layout.num_columns or len(cells)
    while len(cells) > num_columns and not cells[-1].strip(" "):
        cells.pop()
    while len(cells) > num_columns and not cells[0].strip(" "):
        del cells[0]
    return cells


def _delimited_cells(line: str, delimiter: str, num_columns: int) -> list[str]:
    """Split a line at a character; the word may be that character, or stand in double quotes."""
    if line.startswith('"'):
        try:
            quoted = next(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error:
            quoted = []
        if len(quoted) > 1:
            return quoted
    cells = line.split(delimiter)
    if line.startswith(2 * delimiter) and num_columns > 1 and len(cells) == num_columns + 1:
        return [delimiter, *cells[2:]]
    return cells


def halves(line: str, layout: ConllLayout) -> list[tuple[str, ...]]:
    """Split a line at its tabs or its delimiter, and each part at its blanks; empty parts at its end go."""
    parts = line.rstrip("\r\n").split(layout.delimiter or "\t")
    while len(parts) > 2 and not parts[-1].strip(" "):
        parts.pop()
    while len(parts) > 2 and not parts[0].strip(" "):
        del parts[0]
    return [tuple(part.strip(" ").split(" ")) for part in parts]


def detect_layout(lines: Sequence[str], delimiter: str | None = None) -> ConllLayout:
    """Return the layout of a file, from its first lines.

    Args:
        lines: the first lines.
        delimiter: what separates columns, if the user says so.

    >>> detect_layout(["EU NNP B-ORG", "rejects VBZ O"]).num_columns
    3
    >>> detect_layout(["高 勇" + chr(9) + "B-NAME E-NAME"]).sentence_per_line
    True
    """
    stripped = [line.rstrip("\r\n") for line in lines]
    full = _content_lines(stripped)
    if not full:
        return ConllLayout(False, False, 0)
    other = delimiter if delimiter not in {None, "\t", " "} else ""
    tab = delimiter == "\t" or (delimiter is None and sum("\t" in line for line in full) * 2 > len(full))
    layout = ConllLayout(tab, False, 0, other or "")
    if delimiter != " ":
        parts = [halves(line, layout) for line in full]
        aligned = [p for p in parts if len(p) == 2 and len(p[0]) == len(p[1]) and _may_be_tags(p[1])]
        several = [p[1] for p in aligned if len(p[1]) > 1]
        are_tags = all(is_tag(tag) for tags in several for tag in tags)
        # Other words and tags may have blanks inside, "New York" and "work of art", on some lines.
        if len(aligned) * 2 > len(full) and several and (are_tags or len(several) * 2 >= len(full)):
            return ConllLayout(not other, True, 2, other or "")
    rows = [split_cells(line, layout) for line in full]
    layout = replace(layout, num_columns=_count_columns(rows, may_be_ragged=tab or bool(other)))
    return _name_columns(layout, stripped)


def _may_be_tags(cells: Sequence[str]) -> bool:
    """Tell whether all cells are tags if the first is one; a type may hold blanks, as in "B-work of art"."""
    return not is_tag(cells[0]) or all(map(is_tag, cells))


def _content_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines that may be words: no blank lines, and no lines with # where a sentence may begin."""
    words: list[str] = []
    hashes: list[str] = []
    begins = True
    for line in lines:
        if is_blank(line) or ends_document(line):
            begins = True
        elif begins and line.startswith("#"):
            hashes.append(line)
        else:
            words.append(line)
            begins = False
    return words or hashes


def _count_columns(rows: Sequence[Sequence[str]], *, may_be_ragged: bool) -> int:
    """Return the number of cells of most lines, without columns at the edges that are always empty."""
    if may_be_ragged:
        trimmed = {len(_without_edges(row)) for row in rows}
        if len(trimmed) == 1 and min(trimmed) > 1:
            return trimmed.pop()
    counts = [len(row) for row in rows]
    count = max(set(counts), key=lambda number: (counts.count(number), number))
    typical = [row for row in rows if len(row) == count]
    for edge in (-1, 0):
        while may_be_ragged and count > 2 and not any(row[edge].strip(" ") for row in typical):
            typical = [row[:-1] if edge else row[1:] for row in typical]
            count -= 1
    return count


def _without_edges(cells: Sequence[str]) -> Sequence[str]:
    """Return cells without the empty ones at both ends."""
    full = [number for number, cell in enumerate(cells) if cell.strip(" ")]
    return cells[full[0] : full[-1] + 1] if full else ()


def _name_columns(layout: ConllLayout, lines: Sequence[str]) -> ConllLayout:
    """Return a layout with what the first lines show about its columns."""
    sentences = _head_sentences(layout, lines)
    first = sentences[0][0] if sentences else []
    if _is_header(first):
        has_rows = bool(_NUMBER_NAMES & {normalize_name(cell) for cell in first})
        names = tuple(cell.strip() for cell in first)
        note = "the first line is a header"
        return replace(layout, names=names, has_header=True, has_rows=has_rows, note=note)
    last = {row[-1] for rows in sentences for row in rows}
    if layout.num_columns > 1 and not all(map(is_tag, last)):
        layout = replace(layout, known_tags=frozenset(last))
    named = next((found[1] for line in lines if (found := _COLUMNS_COMMENT.match(line))), "")
    names = tuple(name.lower() for name in named.split())
    counts = _counts_words(sentences, layout)
    if len(names) == layout.num_columns:
        return replace(layout, names=names, counts_words=counts)
    if counts:
        is_germeval = any(line.startswith("#\t") for line in lines)
        return _named_after_counts(replace(layout, counts_words=True), sentences, is_germeval=is_germeval)
    if _numbers_sentences(sentences, layout):
        others = (f"column_{number}" for number in range(3, layout.num_columns))
        note = "column 1 numbers the sentences, column 2 has the words"
        return replace(layout, names=("sentence_id", "words", *others, "tags"), has_rows=True, note=note)
    return layout


def _head_sentences(layout: ConllLayout, lines: Sequence[str]) -> list[list[list[str]]]:
    """Return the cells of the first sentences, without lines of another number of cells."""
    sentences: list[list[list[str]]] = [[]]
    for line in lines:
        if is_blank(line) or ends_document(line):
            sentences.append([])
        elif sentences[-1] or not line.startswith("#"):
            cells = split_cells(line, layout)
            if len(cells) == layout.num_columns:
                sentences[-1].append(cells)
    return [rows for rows in sentences if rows]


def _is_header(cells: Sequence[str]) -> bool:
    names = {normalize_name(cell) for cell in cells}
    return len(names) > 1 and len(names) == len(cells) and bool(names & _WORD_NAMES and names & _OTHER_NAMES)


def _counts_words(sentences: Sequence[Sequence[Sequence[str]]], layout: ConllLayout) -> bool:
    """Tell whether the first column counts the words of each sentence, beside a column of words."""
    has_words = layout.num_columns > 2 or (layout.num_columns == 2 and bool(layout.known_tags))
    longest = 0
    for rows in sentences:
        cells = [row[0] for row in rows if not _PART_OF_WORD.fullmatch(row[0])]
        length = 0  # since the count began, or began anew without a blank line
        for cell in cells:
            length = 1 if cell == cells[0] else length + 1
            if cells[0] not in {"0", "1"} or cell != str(int(cells[0]) + length - 1):
                return False
            longest = max(longest, length)
    return has_words and longest > 1


def _named_after_counts(
    layout: ConllLayout, sentences: Sequence[Sequence[Sequence[str]]], *, is_germeval: bool
) -> ConllLayout:
    """Return a layout whose first column counts words, with its names.

    Args:
        layout: the layout so far.
        sentences: the cells of the first sentences.
        is_germeval: whether comments are those of GermEval 2014, whose column 3 has the outer entities.
    """
    if layout.num_columns == len(CONLLU_COLUMNS):
        return replace(layout, names=CONLLU_COLUMNS, note="columns of CoNLL-U")
    rows = [row for rows in sentences for row in rows]
    others = [f"column_{number}" for number in range(3, layout.num_columns + 1)]
    note = "column 1 counts the words, which are in column 2"
    has_two = layout.num_columns == 4 and all(is_tag(row[2]) and is_tag(row[3]) for row in rows)
    if has_two and is_germeval:
        others[0] = "tags"
        note += (
            "; columns 3 and 4 hold tags: the outer ones of column 3 are read, "
            "data.columns=[_,text,_,label] reads column 4"
        )
    elif others:
        others[-1] = "tags"
    if has_two and not is_germeval:
        note += (
            "; columns 3 and 4 hold tags: those of column 4 are read, "
            "data.columns=[_,text,label,_] reads column 3"
        )
    return replace(layout, names=("column_1", "words", *others), note=note)


def _numbers_sentences(sentences: Sequence[Sequence[Sequence[str]]], layout: ConllLayout) -> bool:
    """Tell whether the first column has whole numbers that never fall, in a file without blank lines."""
    if len(sentences) != 1 or layout.num_columns < 3:
        return False
    numbers = [row[0] for row in sentences[0]]
    if not all(number.isdecimal() for number in numbers):
        return False
    values = list(map(int, numbers))
    return values == sorted(values) and 1 < len(set(values)) < len(values)
