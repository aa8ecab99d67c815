"""Tables with a word a row -> sentences: the rows of one sentence become one record of lists.

    sentence_id,word,tag            Sentence #,Word,POS,Tag
    0,Anna,B-PER                    Sentence: 1,Anna,NNP,B-PER
    0,lives,O                       ,lives,VBZ,O
    1,Peter,B-PER                   Sentence: 2,Peter,NNP,B-PER

A column numbers the sentences, on each row or on the first row of each sentence; or rows without a word, or
blank lines, divide them. Rows that are whole texts stay as they are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bertune.data.columns import TARGET_ALIASES, TEXT_ALIASES, normalize_name
from bertune.data.conll import ends_setting
from bertune.data.labels import format_label, is_missing
from bertune.data.records import ReadOptions, Record
from bertune.data.tags import is_tag, parse_tag
from bertune.errors import DataError, did_you_mean, listed
from bertune.types import Columns

SENTENCE_ID = "sentence_id"
"""The field of `data.columns` that names the column with the numbers of the sentences."""
_NUMBER_ALIASES = (
    "sentenceid", "sentence#", "sentenceidx", "sentencenumber", "sentencenum", "sentenceno", "sentencenr",
    "sentid", "sentidx", "sentno", "sentnum", "sent#", "sentence", "sent", "句子编号", "句子id",
)  # fmt: skip
_DOCUMENT_ALIASES = ("documentid", "docid", "document", "doc", "docname", "file", "filename")
_WORD_ALIASES = (
    "word", "words", "token", "tokens", "form", "char", "chars", "character", "characters", "text",
    "字", "词",
)  # fmt: skip
_TAG_ALIASES = ("tag", "tags", "nertag", "nertags", "ner", "bio", "iob", "label", "labels", "标签")
_POS_ALIASES = ("upos", "pos", "postag", "postags", "xpos")
_ID_NAMES = ("id", "sid", "idx", "index", "docid", "documentid", "sentences", "satz", "group")
"""Names of columns that number sentences where rows share a number; else they number rows."""
_MANY_ROWS = 20
_HEAD_ROWS = 200
"""Rows that decide whether a file has a word a row."""
_SENTENCE_MARKS = frozenset((*".!?,;:", *"。！？，；、"))
"""Words that no data set has as texts of their own, several times."""


@dataclass(frozen=True)
class WordTable:
    """The columns of a table with a word a row."""

    word: str
    tag: str | None
    number: str | None
    """The column that numbers the sentences; None where blank rows or lines divide them."""
    document: str | None = None
    """The column of a document within which sentences are numbered."""

    def mapping(self, target: str) -> dict[str, str]:
        """Return the columns of text and target by field, for the search for columns."""
        return {"text": self.word, **({target: self.tag} if self.tag else {})}

    @property
    def grouping(self) -> tuple[str, ...]:
        """Return the columns by which words are grouped to sentences."""
        return tuple(column for column in (self.document, self.number) if column)


def word_columns(header: Sequence[str], columns: Columns) -> dict[str, str]:
    """Return the columns of words and tags by field, where the header has none of the usual names.

    >>> word_columns(["word", "pos"], Columns(("text",), (), "label"))
    {'text': 'word', 'label': 'pos'}
    """
    names = {normalize_name(column) for column in header}
    found: dict[str, str | None] = {}
    if not names & {*columns.text_aliases, *TEXT_ALIASES}:
        found["text"] = _first(_WORD_ALIASES, header, set())
    if not names & {*columns.target_aliases, *TARGET_ALIASES}:
        found[columns.target] = _first((*_TAG_ALIASES, *_POS_ALIASES), header, set())
    return {field: column for field, column in found.items() if column}


def group_words(records: Iterator[Record], options: ReadOptions) -> tuple[Iterator[Record], WordTable | None]:
    """Return the records of a file, one a sentence, and the columns of a table with a word a row.

    Files whose rows are whole texts are returned as they are, with None.

    Args:
        records: the records of the file.
        options: how to read the file.

    Raises:
        DataError: each row is one word of a longer text, and nothing says where sentences end.
    """
    flagged = _with_damage(records, options)
    head = list(itertools.islice(flagged, _HEAD_ROWS))
    flagged = itertools.chain(head, flagged)
    table = find_word_table([record for record, _ in head if record], options)
    if table is None:
        return (record for record, _ in flagged if record), None
    return _sentences(flagged, table, options), table


def _with_damage(records: Iterator[Record], options: ReadOptions) -> Iterator[tuple[Record | None, bool]]:
    """Yield each record, and None at the end, with whether bad rows stood directly before it."""
    record: Record | None = None
    while True:
        before = options.bad_rows.count
        record = next(records, None)
        yield record, options.bad_rows.count > before
        if record is None:
            return


def find_word_table(head: Sequence[Record], options: ReadOptions) -> WordTable | None:
    """Return the columns of a table with a word a row; None where each row is a text of its own.

    Args:
        head: the first records of the file.
        options: how to read the file.

    Raises:
        DataError: each row is one word of a longer text, and nothing says where sentences end.
    """
    if not head:
        return None
    header = list(head[0].values)
    columns = options.settings.columns
    columns = columns if isinstance(columns, dict) else {}
    given = {field: name for field, name in columns.items() if isinstance(name, str)}
    number = _number_column(header, given.get(SENTENCE_ID), options)
    taken = {number} if number else set()
    word = given.get("text") or _first(_WORD_ALIASES, header, taken)
    if word is None or word not in header:
        return None
    target = given.get(options.columns.target)
    tag = target or _first((*_TAG_ALIASES, *_POS_ALIASES), header, {*taken, word})
    tag = tag if tag in header else None
    rows = [row for row in head if not _is_blank_row(row, word, tag)]
    if not rows or not _are_single_words(rows, word, tag):
        return None
    document = _first(_DOCUMENT_ALIASES, header, {*taken, word, tag or word})
    if number and (SENTENCE_ID in given or _numbers_sentences(rows, number, document)):
        return WordTable(word, tag, number, document)
    if number and all(_to_int(_key(row, number, None)[1]) is not None for row in rows):
        return None  # each row has a number of its own
    if not _are_parts_of_sentences(rows, word, tag) and not any(
        normalize_name(column) in _ID_NAMES and _rises(rows, column) for column in header
    ):
        _note_single_words(rows, tag, options)
        return None
    has_gaps = len(rows) < len(head) or any(_is_gap(a, b) for a, b in itertools.pairwise(head))
    if has_gaps or options.settings.sentence_ends is not None:
        return WordTable(word, tag, None)
    raise DataError(_no_sentences_message(options.source, rows, word, header))


def _note_single_words(rows: Sequence[Record], tag: str | None, options: ReadOptions) -> None:
    """Say that many rows with tags have one word each: they may be words of longer texts."""
    if len(rows) >= _MANY_ROWS and tag and not any(_is_empty(row.values.get(tag)) for row in rows):
        options.note(
            f"{options.source}: each row is a text of one word; if they are words of sentences, name the "
            f"column that numbers the sentences, data.columns={{{SENTENCE_ID}: NAME}}, or put blank lines "
            "between them"
        )


def has_word_rows(head: Sequence[Record], options: ReadOptions) -> bool:
    """Tell whether the first records of a file have a word each, and numbers of sentences."""
    try:
        table = find_word_table(head, options)
    except DataError:
        return False
    return table is not None and table.number is not None and table.tag is not None


def _number_column(header: Sequence[str], given: str | None, options: ReadOptions) -> str | None:
    if given is None:
        return _first(_NUMBER_ALIASES, header, set())
    if given not in header:
        raise DataError(
            f"{options.source}: no column {given!r} for {SENTENCE_ID!r}{did_you_mean(given, header)}; "
            f"columns found: {listed(header)}"
        )
    return given


def _first(aliases: Sequence[str], header: Sequence[str], taken: set[str]) -> str | None:
    """Return the column of the first alias that the header has, without the taken ones."""
    names = {normalize_name(column): column for column in header if column not in taken}
    return next((names[alias] for alias in aliases if alias in names), None)


def _is_empty(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def _is_blank_row(record: Record, word: str, tag: str | None) -> bool:
    """Tell whether a row has neither word nor tag."""
    return _is_empty(record.values.get(word)) and (tag is None or _is_empty(record.values.get(tag)))


def _are_single_words(rows: Sequence[Record], word: str, tag: str | None) -> bool:
    """Tell whether rows have one word each, and at most one tag."""
    words = [row.values.get(word) for row in rows]
    tags = [row.values.get(tag) for row in rows] if tag else []
    if any(isinstance(value, list | dict) for value in (*words, *tags)):
        return False
    several_tags = sum(len(str(value).split()) > 1 for value in tags if not is_missing(value))
    several_words = sum(len(str(value).split()) > 1 for value in words if not is_missing(value))
    has_tags = any(not _is_empty(value) for value in tags)
    # A word with a blank inside, "New York", is possible where a tag of its own says that it is one word.
    return not several_tags and several_words <= (len(rows) // 10 if has_tags else 0)


def _numbers_sentences(rows: Sequence[Record], number: str, document: str | None) -> bool:
    """Tell whether several rows share a number, or follow a row with one."""
    values = [row.values.get(number) for row in rows]
    if any(isinstance(value, list | dict) for value in values):
        return False
    keys = [_key(row, number, document) for row in rows]
    return any(not key for _, key in keys[1:]) or len(set(keys)) < len(keys)


def _are_parts_of_sentences(rows: Sequence[Record], word: str, tag: str | None) -> bool:
    """Tell whether rows of one word are the words of longer texts: tags go on from row to row, or marks."""
    marks = sum(str(row.values.get(word)).strip() in _SENTENCE_MARKS for row in rows)
    tags = [str(row.values.get(tag)).strip() for row in rows] if tag else []
    if not tags or not all(map(is_tag, tags)):
        return bool(tags) and marks > 1
    parsed = [parse_tag(value) for value in tags]
    inner = [n for n, (prefix, _) in enumerate(parsed) if n and prefix in "IE"]
    following = [n for n in inner if parsed[n - 1][0] in "BI" and parsed[n - 1][1] == parsed[n][1]]
    begun = any(parsed[n - 1][0] == "B" for n in following)
    return (begun and len(following) * 5 >= len(inner) * 4) or marks > 1  # one mark may be chance


def _is_gap(first: Record, second: Record) -> bool:
    """Tell whether a blank line stands between two records."""
    newlines = sum(str(value).count("\n") for value in first.values.values())
    return second.line > first.line + newlines + 1


def _no_sentences_message(source: str, rows: Sequence[Record], word: str, header: Sequence[str]) -> str:
    words = [str(row.values.get(word)).strip() for row in rows]
    begin = " ".join(words[:6])
    others = [column for column in header if _rises(rows, column)]
    name = others[0] if others else "NAME"
    return (
        f"{source}: each row is one word ({begin} ...), and nothing says where a sentence ends; name the "
        f"column that numbers the sentences, data.columns={{{SENTENCE_ID}: {name}}}, or put a blank line "
        f"between them, or cut after some words, {ends_setting(words)} "
        "(if each row is a text of its own, give each a number of its own)"
    )


def _rises(rows: Sequence[Record], column: str) -> bool:
    """Tell whether a column has whole numbers that never fall, some of them several times."""
    try:
        numbers = [int(str(row.values.get(column))) for row in rows]
    except ValueError:
        return False
    return numbers == sorted(numbers) and 1 < len(set(numbers)) < len(numbers)


def _key(record: Record, number: str, document: str | None) -> tuple[str, str]:
    """Return document and number of a row; "" where a cell is empty."""
    cells = (record.values.get(column) if column else None for column in (document, number))
    first, second = ("" if _is_empty(cell) else format_label(cell) for cell in cells)
    return first, second


class _Numbering:
    """Follows the numbers of the sentences, and refuses rows of one sentence that stand apart."""

    def __init__(self, table: WordTable, source: str) -> None:
        self._table = table
        self._source = source
        self._seen: set[tuple[str, str]] = set()
        self._current: tuple[str, str] | None = None
        self._first: int | None = None
        self._longest = 0  # rows of the longest sentence since the numbers began
        self._length = 0
        self.num_restarts = 0

    def begins_sentence(self, record: Record) -> bool:
        """Tell whether a row begins a sentence.

        Raises:
            DataError: its number stood at other rows before.
        """
        key = _key(record, self._table.number or "", self._table.document)
        if self._current is not None and (not key[1] or key == self._current):
            self._length += 1
            return False
        self._longest, self._length = max(self._longest, self._length), 1
        if key in self._seen:
            self._restart(key, record)
        if self._first is None:
            self._first = _to_int(key[1])
        self._seen.add(key)
        self._current = key
        return True

    def _restart(self, key: tuple[str, str], record: Record) -> None:
        """Begin the numbers anew, as each document may do."""
        number, last = _to_int(key[1]), _to_int((self._current or key)[1])
        if number is None and " " in key[1]:
            return  # the text of a sentence instead of its number
        begins_anew = number is not None and number == self._first and last is not None and number < last
        if not begins_anew or self._longest == 1:
            raise DataError(
                f"{self._source}:{record.line}: sentence {key[1]} (column {self._table.number!r}) goes on "
                "here, after other sentences: sort the rows, so that those of a sentence stand together"
            )
        self._seen.clear()
        self._longest = 0
        self.num_restarts += 1


def _to_int(text: str) -> int | None:
    """Return the number of a sentence, such as 3 in "Sentence: 3"; None for a text."""
    found = re.fullmatch(r"[^\W\d]*[\W_]*(\d+)(\.0)?", text)
    return int(found[1]) if found else None


def _sentences(
    records: Iterator[tuple[Record | None, bool]], table: WordTable, options: ReadOptions
) -> Iterator[Record]:
    """Yield a record for each sentence, and say in the end how many rows and sentences there were.

    Args:
        records: what `_with_damage` yields.
        table: the columns.
        options: how the file is read.
    """
    numbering = _Numbering(table, options.source)
    rows: list[Record] = []
    previous: Record | None = None
    num_rows = num_sentences = 0
    sentence_ends = options.settings.sentence_ends or () if table.number is None else ()
    may_end = False  # whether a new sentence begins after the word before, by data.sentence_ends
    is_damaged = ends = False  # whether a row of the sentence was bad; whether the sentence has ended
    for record, follows_bad in records:
        is_damaged = is_damaged or follows_bad
        if record is None:
            break
        ends = ends or (table.number is None and previous is not None and _is_gap(previous, record))
        previous = record
        if _is_blank_row(record, table.word, table.tag):
            ends = True
            continue
        begins = numbering.begins_sentence(record) if table.number else ends or not rows
        begins = begins or (may_end and not _goes_on(record, table))
        if begins:
            yield from _finish(rows, options, is_damaged=is_damaged)
            rows, is_damaged, num_sentences = [], follows_bad, num_sentences + 1
        may_end = str(record.values.get(table.word)).strip() in sentence_ends
        ends = False
        num_rows += 1
        rows.append(record)
    yield from _finish(rows, options, is_damaged=is_damaged)
    ends_by = "after data.sentence_ends" if sentence_ends else "at blank lines and rows"
    by = f"by column {table.number!r}" if table.number else ends_by
    again = f", whose numbers begin anew {numbering.num_restarts} times" if numbering.num_restarts else ""
    options.note(
        f"{options.source}: a word a row: {num_rows} rows grouped to {num_sentences} sentences {by}{again}"
    )


def _goes_on(record: Record, table: WordTable) -> bool:
    """Tell whether a word is inside the entity of the word before it."""
    return table.tag is not None and bool(re.match(r"[IMEL][-_]", str(record.values.get(table.tag))))


def _finish(rows: list[Record], options: ReadOptions, *, is_damaged: bool) -> Iterator[Record]:
    """Yield the rows of a sentence as one record, unless one of them was left out as bad."""
    if is_damaged and rows:
        options.bad_rows(
            f"{options.source}:{rows[0].line}: a row of this sentence cannot be used, so the sentence cannot"
        )
    elif rows:
        columns = dict.fromkeys(column for row in rows for column in row.values)
        lists: dict[str, Any] = {column: [row.values.get(column) for row in rows] for column in columns}
        lists = {name: None if all(map(_is_empty, cells)) else cells for name, cells in lists.items()}
        stride = int(rows[-1].line - rows[0].line == len(rows) - 1)
        yield Record(rows[0].line, lists, stride, tuple(row.values for row in rows))
