"""Lines and tables of each file format to records: one dictionary a row, with the line it began on."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bertune.config.schema import DataConfig
from bertune.data import conll
from bertune.data.columns import match_columns, match_text_columns, normalize_name
from bertune.data.lines import DECOMPRESSION_ERRORS, open_binary, read_lines
from bertune.errors import DataError, MissingExtra, did_you_mean, listed
from bertune.types import Columns


class Record(NamedTuple):
    """One record of a file."""

    line: int
    values: dict[str, Any]
    """By column."""
    stride: int = 0
    """Lines from one word to the next, where each word has a line of its own."""


FORMAT_BY_SUFFIX = {
    ".csv": "csv", ".tsv": "tsv", ".txt": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
    ".conll": "conll", ".conllu": "conll", ".bio": "conll", ".iob": "conll", ".bmes": "conll", ".bioes": "conll",
}  # fmt: skip


@dataclass
class BadRows:
    """Rows that cannot be used, collected so that a user can mend many at once."""

    skip: bool = False
    """Whether such rows are left out instead of ending the run."""
    first_messages: list[str] = field(default_factory=list)
    count: int = 0

    def __call__(self, message: str) -> None:
        """Take note of one bad row."""
        self.count += 1
        if len(self.first_messages) < 5:
            self.first_messages.append(message)

    def finish(self) -> list[str]:
        """End the run when rows were bad, or say how many were left out.

        Raises:
            DataError: a row was bad and bad rows are not to be skipped; one line, the first fault in full.
        """
        if not self.count:
            return []
        if self.skip:
            return [
                f"{self.count} rows left out as unusable (data.bad_rows=skip); the first: {'; '.join(self.first_messages[:3])}"
            ]
        more = self.count - 1
        also = ", ".join(message.split(": ")[0] for message in self.first_messages[1:])
        rest = f" (and {more} more bad row{'s' * (more > 1)}: {also}{', ...' * (more > 4)})" if more else ""
        raise DataError(f"{self.first_messages[0]}{rest}")


@dataclass(frozen=True)
class ReadOptions:
    """How one file is read, and who hears of it."""

    source: str
    """A path, `hub:NAME`, or "-" for standard input."""
    settings: DataConfig
    columns: Columns
    """What the task reads from a row."""
    bad_rows: BadRows
    """Takes records that are broken; they are then left out."""
    note: Callable[[str], None]
    """Called with what a user should know about the file."""
    require_target: bool = True
    """Whether the target column must be there."""


def detect_format(source: str, settings: DataConfig, columns: Columns) -> str:
    """Return csv, tsv, json, jsonl, parquet or conll; hub for a data set of the Hub, lines for standard input.

    A name that tells nothing, and .txt and .tsv, are taken as conll by tasks whose rows are sentences of words.

    Raises:
        DataError: the name does not tell and `data.format` is auto.
    """
    if source.startswith("hub:"):
        return "hub"
    if settings.format != "auto":
        return settings.format
    if source == "-":
        return "lines"
    suffixes = [s.lower() for s in Path(source).suffixes if s.lower() != ".gz"]
    kind = FORMAT_BY_SUFFIX.get(suffixes[-1]) if suffixes else None
    if columns.is_word_level and kind in {None, "tsv"}:
        return "conll"
    if kind is None:
        raise DataError(
            f"{source}: cannot tell the format from the name; set data.format to csv, tsv, json, jsonl, parquet or conll"
        )
    return kind


def read_records(reading: ReadOptions) -> Iterator[Record]:
    """Yield the records of a file; broken ones go to `reading.faults`.

    Raises:
        DataError: the file is missing, damaged, or of another encoding.
    """
    source, settings = reading.source, reading.settings
    if source != "-" and not source.startswith("hub:"):
        _must_exist(Path(source))
    kind = detect_format(source, settings, reading.columns)
    if isinstance(settings.columns, list) and kind not in {"csv", "tsv", "conll"}:
        reading.note(
            f"{source}: has names of its own, so the list in data.columns, which is for files without header, is not used"
        )
    if kind == "hub":
        return _hub(source)
    if kind == "lines":
        return _plain_lines(reading, read_lines(source, settings.encoding, keep_newlines=False))
    if kind == "parquet":
        if source == "-":
            raise DataError("standard input: parquet cannot be read from it; give a file")
        return _parquet(source)
    if kind == "conll":
        return _sentences(reading, read_lines(source, settings.encoding, keep_newlines=False))
    quoted = settings.quoting == "standard" or (settings.quoting == "auto" and kind == "csv")
    text = read_lines(source, settings.encoding, keep_newlines=quoted and kind in {"csv", "tsv"})
    return (
        _json(reading, text) if kind in {"json", "jsonl"} else _separated(reading, kind, text, quoted=quoted)
    )


def _must_exist(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give a file, or a list of files")
    if not path.exists():
        parent = path.parent
        beside = [p.name for p in itertools.islice(parent.iterdir(), 1000)] if parent.is_dir() else []
        where = "" if parent.is_dir() else f"; the folder {str(parent)!r} does not exist either"
        raise DataError(f"{path}: no such file{did_you_mean(path.name, beside)}{where}")


def _plain_lines(reading: ReadOptions, text: Iterable[str]) -> Iterator[Record]:
    """Read a text a line, a pair divided by a tab, or a JSON object a line."""
    for line, content in enumerate(text, 1):
        content = content.rstrip("\r\n")
        if content.lstrip().startswith("{"):
            record = _json_object(reading, line, content)
            if record is not None:
                yield Record(line, record)
        elif content and "text_b" not in (*reading.columns.required, *reading.columns.optional):
            yield Record(line, {"text": content})
        elif content:
            first, tab, second = content.partition("\t")
            yield Record(line, {"text": first, "text_b": second} if tab else {"text": first})
        else:
            reading.bad_rows(f"{reading.source}:{line}: the line is empty")


def _json(reading: ReadOptions, text: Iterator[str]) -> Iterator[Record]:
    blank = 0
    for line, content in enumerate(text, 1):
        if not content.strip():
            blank += 1
            continue
        if line == blank + 1 and content.lstrip().startswith("["):
            yield from _json_array(reading.source, content + "".join(text), line)
            return
        record = _json_object(reading, line, content)
        if record is not None:
            yield Record(line, record)
    if blank:
        reading.note(f"{reading.source}: {blank} blank lines passed over")


def _json_object(reading: ReadOptions, line: int, content: str) -> dict[str, Any] | None:
    place = f"{reading.source}:{line}"
    try:
        record = json.loads(content)
    except json.JSONDecodeError as error:
        reading.bad_rows(
            f"{place}: broken JSON: {error.msg} at column {error.colno}; each line must be one object"
        )
        return None
    if not isinstance(record, dict):
        reading.bad_rows(
            f'{place}: expected a JSON object such as {{"text": ...}}, got {type(record).__name__}'
        )
        return None
    return record


def _past_blanks(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _json_array(source: str, text: str, first_line: int) -> Iterator[Record]:
    """Yield the objects of one array with the line on which each begins."""
    decoder = json.JSONDecoder()
    place = counted = 0
    line = first_line
    ends = "["  # what must stand before the next object
    while True:
        place = _past_blanks(text, place)
        found = text[place : place + 1]
        if found == "]" and ends == ",":
            break
        if found != ends:
            raise _broken_array(source, first_line, text, place, "expected ',' or ']'")
        place = _past_blanks(text, place + 1)
        if ends == "[" and text[place : place + 1] == "]":
            break
        line += text.count("\n", counted, place)
        counted = place
        try:
            record, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise _broken_array(source, first_line, text, error.pos, error.msg) from None
        if not isinstance(record, dict):
            raise DataError(
                f'{source}:{line}: expected a JSON object such as {{"text": ...}}, got {type(record).__name__}'
            )
        yield Record(line, record)
        ends = ","
    after = _past_blanks(text, place + 1)
    if after < len(text):
        raise _broken_array(source, first_line, text, after, "the array has ended, but more follows")


def _broken_array(source: str, first_line: int, text: str, place: int, what: str) -> DataError:
    line = first_line + text.count("\n", 0, place)
    return DataError(
        f"{source}:{line}: broken JSON: {what} at column {place - text.rfind(chr(10), 0, place)}"
    )


def _separated(reading: ReadOptions, kind: str, text: Iterator[str], *, quoted: bool) -> Iterator[Record]:
    source = reading.source
    delimiter = reading.settings.delimiter or ("," if kind == "csv" else "\t")
    cells = _quoted_cells(source, text, delimiter) if quoted else _literal_cells(text, delimiter)
    header: list[str] | None = None
    blank = 0
    for line, values in cells:
        if not values:
            blank += 1
            continue
        if header is None:
            header, is_data = _header(reading, line, values)
            if not is_data:
                continue
        if len(values) != len(header):
            hint = "; if it is a header, set data.columns=null" if line == 1 else ""
            reading.bad_rows(
                _wrong_width(f"{source}:{line}", values, header, delimiter, quoted=quoted) + hint
            )
            continue
        yield Record(line, dict(zip(header, values, strict=True)))
    if blank:
        reading.note(f"{source}: {blank} blank lines passed over")


def _literal_cells(text: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for line, content in enumerate(text, 1):
        content = content.removesuffix("\n").removesuffix("\r")
        yield line, content.split(delimiter) if content else []


def _sentences(reading: ReadOptions, text: Iterable[str]) -> Iterator[Record]:
    skipped: dict[str, int] = {}
    form, sentences = conll.read_sentences(text, skipped)
    given = reading.settings.columns
    if form.num_columns == 1 and not reading.require_target and reading.settings.format == "auto":
        raise DataError(
            f"{reading.source}: has one column; say whether it holds a word a line (data.format=conll) or a text a line (data.format=lines)"
        )
    names = conll.column_names(
        form,
        given if isinstance(given, list) else None,
        reading.source,
        require_target=reading.require_target,
    )
    for sentence in sentences:
        if sentence.error:
            hint = (
                "" if reading.require_target else "; if the file holds a text a line, set data.format=lines"
            )
            reading.bad_rows(f"{reading.source}:{sentence.line}: {sentence.error}{hint}")
        else:
            yield Record(
                sentence.line, conll.columns_by_name(sentence, names), 0 if form.sentence_per_line else 1
            )
    if skipped:
        reading.note(
            f"{reading.source}: {', '.join(f'{count} {kind}' for kind, count in skipped.items())} passed over"
        )


def _quoted_cells(source: str, text: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    line = 1
    try:
        for values in reader:
            yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{source}:{line}: broken quotation: {error}; a quotation mark inside a quoted field must be doubled; "
            "if quotation marks are plain text in this file, set data.quoting=none"
        ) from None


def _header(reading: ReadOptions, line: int, values: list[str]) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the first line is itself a row of data."""
    source, columns = reading.source, reading.settings.columns
    if not isinstance(columns, list) and _is_text_a_line(reading, values):
        reading.note(
            f"{source}: one column whose first line names none: taken as a text a line, without header"
        )
        return ["text"], True
    if not isinstance(columns, list):
        names = [value.strip() or f"column_{place}" for place, value in enumerate(values, 1)]
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise DataError(
                f"{source}:{line}: the header names {listed(twice)} twice; names found: {listed(names)}"
            )
        return names, False
    # A list may name "_" several times: columns that nobody reads, kept apart by their place.
    names = [f"column_{place}" if name == "_" else name for place, name in enumerate(columns, 1)]
    if [normalize_name(v) for v in values] == [normalize_name(n) for n in columns]:
        reading.note(
            f"{source}: the first line repeats the names of data.columns, so it is taken as a header"
        )
        return names, False
    if not reading.require_target and len(values) == len(names) - 1:
        target = match_columns(names, None, reading.columns, source, require_target=False).get(
            reading.columns.target
        )
        if target is not None:
            reading.note(
                f"{source}: has {len(values)} columns where data.columns names {len(names)}: taken as rows without {target!r}"
            )
            return [name for name in names if name != target], True
    if not reading.columns.target_required and len(values) < len(names):
        reading.note(
            f"{source}: has {len(values)} columns where data.columns names {len(names)}: taken as {listed(names[: len(values)])}"
        )
        return names[: len(values)], True
    return names, True


def _is_text_a_line(reading: ReadOptions, first: list[str]) -> bool:
    """Tell whether a file is plain text: tasks that learn from texts alone are given such files."""
    alone = len(first) == 1 and not reading.columns.target_required
    given = (
        isinstance(reading.settings.columns, dict) and first[0].strip() in reading.settings.columns.values()
    )
    return alone and not given and "text" not in match_text_columns(first, reading.columns)


def _wrong_width(
    place: str, values: Sequence[str], header: Sequence[str], delimiter: str, *, quoted: bool
) -> str:
    message = f"{place}: {len(values)} columns where {len(header)} are expected ({', '.join(header)})"
    cells = "".join(values)
    if len(values) == 1 and delimiter == "," and "\t" in cells:
        return f"{message}; the line holds tabs: set data.delimiter=tab"
    if len(values) == 1 and ";" in cells and delimiter == ",":
        return f"{message}; the line holds semicolons: set data.delimiter=semicolon"
    if not quoted and any(v.startswith('"') for v in values):
        return f"{message}; a field begins with a quotation mark: if fields are quoted in this file, set data.quoting=standard"
    return f"{message}; mend the row, or set data.bad_rows=skip"


def _parquet(source: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(source) as raw:
            stream = io.BytesIO(raw.read()) if source.lower().endswith(".gz") else raw
            line = 0
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=4096):
                for record in batch.to_pylist():
                    line += 1
                    yield Record(line, record)
    except (pa.ArrowException, OSError, *DECOMPRESSION_ERRORS) as error:
        raise DataError(f"{source}: not a readable parquet file: {' '.join(str(error).split())}") from None


def _hub(source: str) -> Iterator[Record]:
    """Read `hub:NAME`, `hub:OWNER/NAME`, each with `/CONFIG` and `:SPLIT` after it, or a local folder of data files."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "hub", f"{source!r}") from None
    name, _, split = source.removeprefix("hub:").partition(":")
    parts = name.split("/")
    tries: list[tuple[str, ...]] = [(name,)]
    if len(parts) > 1 and not Path(name).exists():
        tries.append(("/".join(parts[:-1]), parts[-1]))
        tries = tries[::-1] if len(parts) == 3 else tries
    problem: Exception | None = None
    for attempt in tries:
        try:
            loaded = datasets.load_dataset(*attempt, split=split or "train")
        except (OSError, ValueError, RuntimeError) as error:
            problem = error
            continue
        named = {k: f for k, f in loaded.features.items() if isinstance(f, datasets.ClassLabel)}
        inner = {
            k: getattr(f, "feature", None) for k, f in loaded.features.items()
        }  # of lists, such as the tags of a sentence
        tags = {k: f for k, f in inner.items() if isinstance(f, datasets.ClassLabel)}
        for line, record in enumerate(loaded, 1):
            for column, feature in named.items():
                value = record[column]
                # GLUE and others write -1 where a test split has no label.
                record[column] = None if value is None or value < 0 else feature.int2str(value)
            for column, feature in tags.items():
                record[column] = (
                    None if record[column] is None else [feature.int2str(value) for value in record[column]]
                )
            yield Record(line, record)
        return
    raise DataError(
        f"{source}: cannot be loaded from the Hub: {str(problem).splitlines()[0] if str(problem) else type(problem).__name__}"
    )
