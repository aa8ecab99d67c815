"""Which documents are relevant to a query: files of judgements ("qrels"), as BEIR and TREC have them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bertune.config.schema import DataConfig
from bertune.data.columns import normalize_name
from bertune.data.formats import read_records
from bertune.data.lines import read_lines
from bertune.data.records import BadRows, ReadOptions
from bertune.errors import DataError, listed
from bertune.types import Columns

QUERY_NAMES = ("queryid", "qid", "query", "topic", "topicid")
DOCUMENT_NAMES = ("corpusid", "docid", "documentid", "did", "pid", "passageid", "document", "doc", "docno")
GRADE_NAMES = ("score", "relevance", "rel", "label", "grade", "judgment", "judgement")
"""Names of the columns, without case, blanks, "_" and "-"."""
_LAYOUTS = {2: (0, 1, None), 3: (0, 1, 2), 4: (0, 2, 3)}
"""By the number of columns of a file without header: where query, document and grade are (TREC has four)."""
_Fields = tuple[str, str, str]


@dataclass(frozen=True)
class Judgements:
    """How relevant documents are to queries, by their ids."""

    grades: dict[str, dict[str, float]]
    """By query, then by document; 0 and less is not relevant."""
    has_grades: bool
    """Whether the file says how relevant; if not, every document that it names is."""

    @property
    def num_judged(self) -> int:
        """Return how many pairs of a query and a document there are."""
        return sum(map(len, self.grades.values()))


def read_judgements(file: str) -> Judgements:
    """Read a file of judgements.

    - BEIR: query, document and grade, with a header (`query-id`, `corpus-id`, `score`) or without. - TREC:
    query, a number without meaning, document, grade; without header. - csv, JSON lines or parquet with
    columns of such names.

    Raises:
        DataError: the file is missing, a line cannot be read, or a pair is judged twice and differently.
    """
    if not Path(file).is_file():
        raise DataError(f"{file}: no such file")
    grades: dict[str, dict[str, float]] = {}
    has_grades = False
    for location, (query, document, text) in _read_fields(file):
        if not query or not document:
            raise DataError(f"{location}: the id of the query or of the document is empty")
        has_grades = has_grades or bool(text)
        grade = _to_grade(text, location)
        before = grades.setdefault(query, {}).setdefault(document, grade)
        if before != grade:
            raise DataError(
                f"{location}: query {query!r} and document {document!r} are judged twice: "
                f"{before:g} and {grade:g}"
            )
    if not grades:
        raise DataError(f"{file}: holds no judgements")
    return Judgements(grades, has_grades)


def _to_grade(text: str, location: str) -> float:
    if not text:
        return 1.0
    try:
        grade = float(text)
    except ValueError:
        grade = math.nan
    if not math.isfinite(grade):
        raise DataError(f"{location}: the grade must be a number, got {text!r}")
    return grade


def _read_fields(file: str) -> Iterator[tuple[str, _Fields]]:
    """Yield the location of each judgement, and its query, document and grade; "" without a grade."""
    suffixes = [suffix for suffix in Path(file.lower()).suffixes if suffix != ".gz"]
    if suffixes and suffixes[-1] in {".jsonl", ".json", ".ndjson", ".parquet"}:
        yield from _read_objects(file)
        return
    lines = (
        (f"{file}:{number}", line)
        for number, line in enumerate(read_lines(file, "utf-8", keep_newlines=False), 1)
        if line.strip()
    )
    places: tuple[int, int, int | None] | None = None
    width = 0
    for location, line in lines:
        cells = _split(line.rstrip("\r\n"))
        if places is None:
            width = len(cells)
            header = _places_of_header(cells, location)
            places = header or _places_of(cells, location)
            if header:
                continue
        if len(cells) != width:
            raise DataError(f"{location}: has {len(cells)} columns, and the first line has {width}")
        query, document, grade = (cells[place].strip() if place is not None else "" for place in places)
        yield location, (query, document, grade)


def _split(line: str) -> list[str]:
    """Divide a line at tabs, commas or blanks, the first of these that it has."""
    if "\t" in line:
        return line.rstrip("\t").split("\t")
    if "," in line:
        return next(csv.reader([line]))
    return line.split()


def _places_of_header(cells: list[str], location: str) -> tuple[int, int, int | None] | None:
    """Return where query, document and grade are, if the line is a header."""
    names = [normalize_name(cell) for cell in cells]
    query, document, grade = (
        next((names.index(name) for name in wanted if name in names), None)
        for wanted in (QUERY_NAMES, DOCUMENT_NAMES, GRADE_NAMES)
    )
    if query is not None and document is not None:
        if grade is None and len(cells) > 2:
            raise DataError(
                f"{location}: no column for the grade among {listed(cells)}; call it score, "
                "or leave the other columns out"
            )
        return query, document, grade
    return None


def _places_of(cells: list[str], location: str) -> tuple[int, int, int | None]:
    places = _LAYOUTS.get(len(cells))
    if len(cells) == 6 and cells[1].upper() == "Q0":
        raise DataError(
            f"{location}: is a ranking (a TREC run), not judgements; give the file that says which "
            "documents are relevant"
        )
    if places is None or (len(cells) > 2 and not _is_number(cells[-1])):
        raise DataError(
            f"{location}: expected query, document and grade (BEIR), or query, 0, document and grade (TREC), "
            f"got {listed(cells)}"
        )
    return places


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _read_objects(file: str) -> Iterator[tuple[str, _Fields]]:
    bad_rows = BadRows()
    options = ReadOptions(file, DataConfig(), Columns((), (), ""), bad_rows, lambda _: None)
    for line, record, *_ in read_records(options):
        location = f"{file}:{line}"
        names = {normalize_name(name): name for name in record}
        query, document, grade = (
            next((names[name] for name in wanted if name in names), None)
            for wanted in (QUERY_NAMES, DOCUMENT_NAMES, GRADE_NAMES)
        )
        if query is None or document is None:
            raise DataError(
                f"{location}: no column for the query or the document among {listed(record)}; "
                "call them query-id, corpus-id and score"
            )
        text = "" if grade is None or record[grade] is None else str(record[grade])
        yield location, (as_id(record[query]), as_id(record[document]), text)
    bad_rows.finish()


def as_id(value: object) -> str:
    """Return an id as text, without blanks around it; "" for none.

    >>> as_id(7), as_id(" d1"), as_id(None)
    ('7', 'd1', '')
    """
    return "" if value is None else str(value).strip()
