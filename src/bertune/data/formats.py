"""Data files to records: which format a file has, and the reader of each format."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bertune.config.schema import DataConfig
from bertune.data import conll
from bertune.data.columns import TEXT_ALIASES, normalize_name
from bertune.data.converted_rows import convert_records
from bertune.data.delimited import read_delimited
from bertune.data.fasttext import (
    PREFIX,
    has_several_labels,
    looks_like_fasttext,
    read_fasttext,
    split_labels,
)
from bertune.data.file_kinds import HEAD_BYTES, PARQUET, refuse_other_kinds
from bertune.data.hub import read_remote
from bertune.data.json_rows import looks_like_json, read_json, read_json_line
from bertune.data.lines import DECOMPRESSION_ERRORS, is_gzip, open_binary, read_head, read_lines
from bertune.data.records import ReadOptions, Record
from bertune.errors import DataError, did_you_mean
from bertune.files import is_remote
from bertune.types import Columns

FORMAT_BY_SUFFIX = {
    ".csv": "csv", ".tsv": "tsv", ".txt": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
    ".conll": "conll", ".conllu": "conll", ".bio": "conll", ".iob": "conll", ".bmes": "conll",
    ".bioes": "conll",
}  # fmt: skip


def detect_format(source: str, settings: DataConfig, columns: Columns) -> str:
    """Return csv, tsv, json, jsonl, fasttext, parquet or conll; hub for a remote data set, lines for "-".

    The name decides, unless the file is there and holds parquet, JSON, or lines of fastText under the name of
    a table. For tasks at word level, .txt, .tsv and names without a known suffix are conll.

    Raises:
        DataError: the suffix is not known and `data.format` is auto.
    """
    if is_remote(source):
        return "hub"
    if settings.format != "auto":
        return settings.format
    if source == "-":
        return "lines"
    kind = _format_of_name(source)
    head = read_head(source)
    if re.match(PARQUET, head):
        return "parquet"
    if kind in {None, "csv", "tsv"}:
        text = head.decode(settings.encoding, "replace").removeprefix("\ufeff")
        if looks_like_json(text, is_cut=len(head) == HEAD_BYTES):
            return "json"
        named = isinstance(settings.columns, list)
        if not named and not columns.is_word_level and looks_like_fasttext(text):
            return "fasttext"
    if columns.is_word_level and kind in {None, "tsv"}:
        return "conll"
    if kind is None:
        refuse_other_kinds(source, head)
        raise DataError(
            f"{source}: cannot tell the format from the name; "
            "set data.format to csv, tsv, json, jsonl, fasttext, parquet or conll"
        )
    return kind


def _format_of_name(source: str) -> str | None:
    suffixes = [suffix.lower() for suffix in Path(source).suffixes if suffix.lower() != ".gz"]
    return FORMAT_BY_SUFFIX.get(suffixes[-1]) if suffixes else None


def read_records(options: ReadOptions) -> Iterator[Record]:
    """Yield the records of a file, as `data.convert` makes them; broken ones go to `options.bad_rows`.

    Raises:
        DataError: the file is missing, damaged, of another encoding, or of a format that is not read.
    """
    return convert_records(_read_as_they_are(options), options)


def _read_as_they_are(options: ReadOptions) -> Iterator[Record]:
    source, settings = options.source, options.settings
    if source != "-" and not is_remote(source):
        _check_exists(Path(source))
    kind = detect_format(source, settings, options.columns)
    _note_content(options, kind)
    if isinstance(settings.columns, list) and kind in {"parquet", "hub", "fasttext"}:
        options.note(
            f"{source}: has names of its own, so the list in data.columns, which is for files without "
            "header, is not used"
        )
    if kind == "hub":
        return read_remote(source)
    if kind == "parquet":
        if source == "-":
            raise DataError("standard input: parquet cannot be read from it; give a file")
        refuse_other_kinds(source, read_head(source), allowed=PARQUET)
        return _parquet_records(source)
    quoted = settings.quoting == "standard" or (settings.quoting == "auto" and kind == "csv")
    text = read_lines(
        source,
        settings.encoding,
        keep_newlines=quoted and kind in {"csv", "tsv"},
        any_text=kind == "lines",
        note=options.note,
    )
    if kind == "lines":
        return _line_records(options, text)
    if kind == "conll":
        return _conll_records(options, text)
    if kind == "fasttext":
        return _fasttext_records(options, text)
    if kind in {"json", "jsonl"}:
        return read_json(options, text)
    return read_delimited(options, kind, text)


def _note_content(options: ReadOptions, kind: str) -> None:
    """Note where the content of a file, not its name, decides how it is read."""
    source = options.source
    if source == "-" or kind == "hub":
        return
    if is_gzip(source) and not source.lower().endswith(".gz"):
        options.note(f"{source}: is compressed by gzip, and read so")
    named = _format_of_name(source)
    if options.settings.format == "auto" and kind != named and kind in {"parquet", "json", "fasttext"}:
        what = {
            "parquet": "is a parquet file",
            "json": "holds JSON",
            "fasttext": "is labelled as for fastText",
        }
        options.note(f"{source}: {what[kind]}, and is read so (set data.format to read it otherwise)")


def _check_exists(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give a file, or a list of files")
    if not path.exists():
        parent = path.parent
        names = [p.name for p in itertools.islice(parent.iterdir(), 1000)] if parent.is_dir() else []
        hint = "" if parent.is_dir() else f"; the folder {str(parent)!r} does not exist either"
        raise DataError(f"{path}: no such file{did_you_mean(path.name, names)}{hint}")


def _line_records(options: ReadOptions, text: Iterable[str]) -> Iterator[Record]:
    """Read one text a line, a pair divided by a tab, one JSON object a line, or lines of fastText."""
    takes_pairs = "text_b" in (*options.columns.required, *options.columns.optional)
    blank: list[int] = []
    num_labelled = 0
    for line, content in enumerate(text, 1):
        content = content.rstrip("\r\n")
        if line == 1 and normalize_name(content) in TEXT_ALIASES:
            what = f"the first line, {content!r}, is read as a text; if it is a header, remove it"
            options.note(f"{options.source}:1: {what}")
        if content.lstrip().startswith("{"):
            yield from read_json_line(options, line, content)
        elif not content.strip():
            blank.append(line)
        elif content.startswith(PREFIX):
            num_labelled += 1
            labels, rest = split_labels(content)
            yield Record(line, {"text": rest, "label": labels[0] if len(labels) == 1 else labels})
        elif not takes_pairs:
            yield Record(line, {"text": content})
        else:
            first, tab, second = content.partition("\t")
            yield Record(line, {"text": first, "text_b": second} if tab else {"text": first})
    if blank:
        lines = ", ".join(map(str, blank[:10])) + (", ..." if len(blank) > 10 else "")
        options.note(f"{options.source}: {len(blank)} blank lines skipped (line {lines})")
    if num_labelled:
        options.note(f"{options.source}: {num_labelled} lines are labelled as for fastText, and read so")


def _fasttext_records(options: ReadOptions, text: Iterable[str]) -> Iterator[Record]:
    """Read lines of fastText. A file is read twice, since one line with several labels says what all mean."""
    source, encoding = options.source, options.settings.encoding
    several = source != "-" and has_several_labels(read_lines(source, encoding, keep_newlines=False))
    if several:
        options.note(f"{source}: some lines have several labels, so every row has a list of labels")
    return read_fasttext(options, text, several=several)


def _conll_records(options: ReadOptions, text: Iterable[str]) -> Iterator[Record]:
    """Read sentences in columns; see `bertune.data.conll`."""
    return conll.read_conll(options, text)


def _parquet_records(source: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(source) as raw:
            stream = io.BytesIO(raw.read()) if is_gzip(source) else raw
            line = 0
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=4096):
                for record in batch.to_pylist():
                    line += 1
                    yield Record(line, record)
    except (pa.ArrowException, OSError, *DECOMPRESSION_ERRORS) as error:
        raise DataError(f"{source}: not a readable parquet file: {' '.join(str(error).split())}") from None
