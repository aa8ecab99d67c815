"""Data files to records: which format a file has, and the reader of each format."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bertune.config.schema import DataConfig
from bertune.data import conll
from bertune.data.delimited import read_delimited
from bertune.data.lines import DECOMPRESSION_ERRORS, open_binary, read_lines
from bertune.data.records import ReadOptions, Record
from bertune.errors import DataError, MissingExtra, did_you_mean
from bertune.types import Columns

FORMAT_BY_SUFFIX = {
    ".csv": "csv", ".tsv": "tsv", ".txt": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
    ".conll": "conll", ".conllu": "conll", ".bio": "conll", ".iob": "conll", ".bmes": "conll",
    ".bioes": "conll",
}  # fmt: skip


def detect_format(source: str, settings: DataConfig, columns: Columns) -> str:
    """Return csv, tsv, json, jsonl, parquet or conll; hub for a Hub data set, lines for standard input.

    For tasks at word level, .txt, .tsv and names without a known suffix are conll.

    Raises:
        DataError: the suffix is not known and `data.format` is auto.
    """
    if source.startswith("hub:"):
        return "hub"
    if settings.format != "auto":
        return settings.format
    if source == "-":
        return "lines"
    suffixes = [suffix.lower() for suffix in Path(source).suffixes if suffix.lower() != ".gz"]
    kind = FORMAT_BY_SUFFIX.get(suffixes[-1]) if suffixes else None
    if columns.is_word_level and kind in {None, "tsv"}:
        return "conll"
    if kind is None:
        raise DataError(
            f"{source}: cannot tell the format from the name; "
            "set data.format to csv, tsv, json, jsonl, parquet or conll"
        )
    return kind


def read_records(options: ReadOptions) -> Iterator[Record]:
    """Yield the records of a file; broken ones go to `options.bad_rows`.

    Raises:
        DataError: the file is missing, damaged, or of another encoding.
    """
    source, settings = options.source, options.settings
    if source != "-" and not source.startswith("hub:"):
        _check_exists(Path(source))
    kind = detect_format(source, settings, options.columns)
    if isinstance(settings.columns, list) and kind not in {"csv", "tsv", "conll"}:
        options.note(
            f"{source}: has names of its own, so the list in data.columns, which is for files without "
            "header, is not used"
        )
    if kind == "hub":
        return _hub_records(source)
    if kind == "lines":
        return _line_records(options, read_lines(source, settings.encoding, keep_newlines=False))
    if kind == "parquet":
        if source == "-":
            raise DataError("standard input: parquet cannot be read from it; give a file")
        return _parquet_records(source)
    if kind == "conll":
        return _conll_records(options, read_lines(source, settings.encoding, keep_newlines=False))
    quoted = settings.quoting == "standard" or (settings.quoting == "auto" and kind == "csv")
    text = read_lines(source, settings.encoding, keep_newlines=quoted and kind in {"csv", "tsv"})
    if kind in {"json", "jsonl"}:
        return _json_records(options, text)
    return read_delimited(options, kind, text, quoted=quoted)


def _check_exists(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give a file, or a list of files")
    if not path.exists():
        parent = path.parent
        names = [p.name for p in itertools.islice(parent.iterdir(), 1000)] if parent.is_dir() else []
        hint = "" if parent.is_dir() else f"; the folder {str(parent)!r} does not exist either"
        raise DataError(f"{path}: no such file{did_you_mean(path.name, names)}{hint}")


def _line_records(options: ReadOptions, text: Iterable[str]) -> Iterator[Record]:
    """Read one text a line, a pair divided by a tab, or one JSON object a line."""
    takes_pairs = "text_b" in (*options.columns.required, *options.columns.optional)
    for line, content in enumerate(text, 1):
        content = content.rstrip("\r\n")
        if content.lstrip().startswith("{"):
            record = _json_object(options, line, content)
            if record is not None:
                yield Record(line, record)
        elif content and not takes_pairs:
            yield Record(line, {"text": content})
        elif content:
            first, tab, second = content.partition("\t")
            yield Record(line, {"text": first, "text_b": second} if tab else {"text": first})
        else:
            options.bad_rows(f"{options.source}:{line}: the line is empty")


def _json_records(options: ReadOptions, text: Iterator[str]) -> Iterator[Record]:
    """Read one JSON object a line, or one array of objects."""
    num_blank = 0
    for line, content in enumerate(text, 1):
        if not content.strip():
            num_blank += 1
            continue
        if line == num_blank + 1 and content.lstrip().startswith("["):
            yield from _json_array(options.source, content + "".join(text), line)
            return
        record = _json_object(options, line, content)
        if record is not None:
            yield Record(line, record)
    if num_blank:
        options.note(f"{options.source}: {num_blank} blank lines skipped")


def _json_object(options: ReadOptions, line: int, content: str) -> dict[str, Any] | None:
    """Return the object of a line, or None for a bad row."""
    location = f"{options.source}:{line}"
    try:
        record = json.loads(content)
    except json.JSONDecodeError as error:
        options.bad_rows(
            f"{location}: broken JSON: {error.msg} at column {error.colno}; each line must be one object"
        )
        return None
    if not isinstance(record, dict):
        options.bad_rows(
            f'{location}: expected a JSON object such as {{"text": ...}}, got {type(record).__name__}'
        )
        return None
    return record


def _skip_whitespace(text: str, offset: int) -> int:
    while offset < len(text) and text[offset] in " \t\r\n":
        offset += 1
    return offset


def _json_array(source: str, text: str, first_line: int) -> Iterator[Record]:
    """Yield the objects of one array, each with the line on which it begins."""
    decoder = json.JSONDecoder()
    offset = counted = 0  # newlines before `counted` are in `line`
    line = first_line
    opening = "["  # what must stand before the next object
    while True:
        offset = _skip_whitespace(text, offset)
        character = text[offset : offset + 1]
        if character == "]" and opening == ",":
            break
        if character != opening:
            raise _broken_array(source, first_line, text, offset, "expected ',' or ']'")
        offset = _skip_whitespace(text, offset + 1)
        if opening == "[" and text[offset : offset + 1] == "]":
            break
        line += text.count("\n", counted, offset)
        counted = offset
        try:
            record, offset = decoder.raw_decode(text, offset)
        except json.JSONDecodeError as error:
            raise _broken_array(source, first_line, text, error.pos, error.msg) from None
        if not isinstance(record, dict):
            raise DataError(
                f'{source}:{line}: expected a JSON object such as {{"text": ...}}, '
                f"got {type(record).__name__}"
            )
        yield Record(line, record)
        opening = ","
    after = _skip_whitespace(text, offset + 1)
    if after < len(text):
        raise _broken_array(source, first_line, text, after, "the array has ended, but more follows")


def _broken_array(source: str, first_line: int, text: str, offset: int, problem: str) -> DataError:
    line = first_line + text.count("\n", 0, offset)
    column = offset - text.rfind("\n", 0, offset)
    return DataError(f"{source}:{line}: broken JSON: {problem} at column {column}")


def _conll_records(options: ReadOptions, text: Iterable[str]) -> Iterator[Record]:
    """Read sentences in columns; see `bertune.data.conll`."""
    return conll.read_conll(options, text)


def _parquet_records(source: str) -> Iterator[Record]:
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


def _hub_records(source: str) -> Iterator[Record]:
    """Read `hub:NAME`, `hub:OWNER/NAME` or a local folder, with optional `/CONFIG` and `:SPLIT`."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "hub", f"{source!r}") from None
    name, _, split = source.removeprefix("hub:").partition(":")
    problem: Exception | None = None
    for arguments in _hub_arguments(name):
        try:
            loaded = datasets.load_dataset(*arguments, split=split or "train")
        except (OSError, ValueError, RuntimeError) as error:
            problem = error
            continue
        label_class = datasets.ClassLabel
        labels = {c: f for c, f in loaded.features.items() if isinstance(f, label_class)}
        elements = {c: getattr(f, "feature", None) for c, f in loaded.features.items()}
        tags = {c: f for c, f in elements.items() if isinstance(f, label_class)}  # such as a list of tags
        for line, record in enumerate(loaded, 1):
            for column, feature in labels.items():
                value = record[column]
                # GLUE and others write -1 where a test split has no label.
                record[column] = None if value is None or value < 0 else feature.int2str(value)
            for column, feature in tags.items():
                ids = record[column]
                record[column] = None if ids is None else [feature.int2str(tag) for tag in ids]
            yield Record(line, record)
        return
    reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
    raise DataError(f"{source}: cannot be loaded from the Hub: {reason}")


def _hub_arguments(name: str) -> list[tuple[str, ...]]:
    """Return the arguments of `load_dataset` to try: the whole name, and a name with a configuration."""
    parts = name.split("/")
    if len(parts) == 1 or Path(name).exists():
        return [(name,)]
    tries: list[tuple[str, ...]] = [(name,), ("/".join(parts[:-1]), parts[-1])]
    return tries[::-1] if len(parts) == 3 else tries
