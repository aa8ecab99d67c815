"""Predictions as csv, JSON lines or CoNLL columns, with every column of the input and in its order."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bertune.data.conll_layout import ends_document
from bertune.errors import ConfigError, DataError
from bertune.files import locked, part_of
from bertune.types import JSON, Entity, Prediction, Row

FORMAT_BY_SUFFIX = {
    ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl",
    ".conll": "conll", ".bio": "conll", ".iob": "conll", ".bmes": "conll", ".bioes": "conll",
}  # fmt: skip


def output_format(path: str | None, asked: str | None, source_format: str) -> str:
    """Return csv, jsonl or conll.

    Args:
        path: the output file, whose name says the format; None for standard output.
        asked: the format that the user asked for, which counts most.
        source_format: the format of the input, which counts for standard output.

    Raises:
        ConfigError: the format is unknown, or the name of the output file says none.
    """
    if asked is not None:
        if asked not in set(FORMAT_BY_SUFFIX.values()):
            raise ConfigError(f"--format: {asked!r} is none of csv, jsonl, conll, leaderboard")
        return asked
    if path is None:
        if source_format in {"csv", "tsv", "parquet"}:
            return "csv"
        return "conll" if source_format == "conll" else "jsonl"
    output = FORMAT_BY_SUFFIX.get(Path(path).suffix.lower())
    if output is None:
        raise ConfigError(
            f"-o {path}: the name must end in .csv, .jsonl or .conll, or --format must say which it is"
        )
    return output


def free_column_names(columns: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Return a name for each wanted column: its own, with "_" added until the input has no such column.

    >>> free_column_names(["text", "prediction"], ["prediction", "confidence"])
    {'prediction': 'prediction_', 'confidence': 'confidence'}
    """
    taken = set(columns)
    free_names = {}
    for name in wanted:
        free_name = name
        while free_name in taken:
            free_name += "_"
        taken.add(free_name)
        free_names[name] = free_name
    return free_names


@contextmanager
def open_output(path: str | None, stdout: IO[str]) -> Iterator[IO[str]]:
    """Yield a file to write to, which gets its name when everything is written. Without a path: `stdout`.

    Raises:
        ConfigError: the file cannot be written, or another process is writing it.
    """
    if path is None:
        yield stdout
        return
    part = part_of(Path(path))
    with locked(Path(path)):
        try:
            with part.open("w", encoding="utf-8", newline="") as file:
                yield file
            part.replace(path)
        except OSError as error:
            raise ConfigError(f"-o {path}: cannot be written: {error.strerror or error}") from None
        finally:
            part.unlink(missing_ok=True)


def write_jsonl(file: IO[str], results: Iterable[tuple[Row, Prediction]]) -> int:
    """Write a JSON object a row of the file, as they come; return how many rows were predicted.

    Each row of a table with a word a row gets the tag of its word.
    """
    count = 0
    for row, prediction in results:
        for record, values in _file_rows(row, prediction, prediction_to_json):
            names = free_column_names(record, values)
            columns = {**record, **{names[name]: value for name, value in values.items()}}
            file.write(json.dumps(columns, ensure_ascii=False, default=str) + "\n")
        file.flush()
        count += 1
    return count


def _file_rows(
    row: Row, prediction: Prediction, to_values: Callable[[Prediction], JSON]
) -> Iterator[tuple[JSON, JSON]]:
    """Yield the rows of the file, each with what is written beside it: a word a row gets its tag."""
    if row.word_records and prediction.tags is not None:
        for record, (_, tag) in zip(row.word_records, prediction.tags, strict=True):
            yield record, {"prediction": tag}
    else:
        yield row.raw, to_values(prediction)


def write_csv(
    file: IO[str],
    header: list[str],
    results: Iterable[tuple[Row, Prediction]],
    label_delimiter: str | None = None,
) -> int:
    """Write a header and a line a row of the file; return how many rows were predicted.

    Each row of a table with a word a row gets the tag of its word.

    Args:
        file: where to write.
        header: the columns of the input; empty takes those of the first row, for standard input.
        results: the rows with their predictions.
        label_delimiter: what stands between the labels of a multi-label prediction; None writes a list in
            JSON, which is read back as a list.

    Raises:
        DataError: a row has a column that the header lacks.
    """
    writer = csv.writer(file, lineterminator="\n")
    names: dict[str, str] = {}
    count = 0
    for row, prediction in results:
        for record, values in _file_rows(row, prediction, lambda p: _to_columns(p, label_delimiter)):
            if not names:
                header = header or list(record)
                names = free_column_names(header, values)
                writer.writerow([*header, *names.values()])
            extra = [column for column in record if column not in header]
            if extra:
                raise DataError(
                    f"{row.location}: the column {extra[0]!r} is not in the first row; write JSON lines "
                    "instead: --format jsonl"
                )
            cells = [to_cell(record.get(column)) for column in header]
            writer.writerow([*cells, *(values[name] for name in names)])
        count += 1
    return count


def write_conll(
    file: IO[str], results: Iterable[tuple[Row, Prediction]], note: Callable[[str], None] | None = None
) -> int:
    """Write a word a line; return how many rows were predicted.

    A line has the columns of a CoNLL input, or the word and the other lists of the row, and then the tag,
    with tabs between them. An empty line ends each row. Tabs and line ends within a word would divide it:
    each becomes a blank.

    Args:
        file: where to write.
        results: the rows with their predictions.
        note: called in the end with what was changed in words.

    Raises:
        ConfigError: the model gives no tags.
        DataError: a word cannot be read back from such a file.
    """
    count = num_changed = 0
    for row, prediction in results:
        if prediction.tags is None:
            raise ConfigError("--format conll: this model gives no tag for each word; use csv or jsonl")
        lines = []
        for cells in _conll_columns(row, prediction.tags):
            written = [_LINE_BREAKS.sub(" ", cell) for cell in cells]
            num_changed += written != cells
            lines.append("\t".join(written) + "\n")
        file.write("".join(lines) + "\n")
        file.flush()
        count += 1
    if num_changed and note:
        note(
            f"{num_changed} words hold tabs or line ends: written as blanks in CoNLL columns; "
            "JSON lines keep them (--format jsonl)"
        )
    return count


_LINE_BREAKS = re.compile(r"\r\n|[\t\r\n]")


def _conll_columns(row: Row, tags: Sequence[tuple[str, str]]) -> Iterator[list[str]]:
    """Yield the cells of each word: those of a CoNLL input, or the word first; the predicted tag last.

    Raises:
        DataError: a word looks like the line that begins a document.
    """
    words, predicted = [word for word, _ in tags], [tag for _, tag in tags]
    marks = [word for word in words if ends_document(word)]
    if marks:
        raise DataError(
            f"{row.location}: the word {marks[0]!r} would begin or end a document in CoNLL columns; write "
            "JSON lines instead: --format jsonl"
        )
    lists = [v for v in row.raw.values() if isinstance(v, list) and len(v) == len(words)]
    if row.word_records or len(lists) < len(row.raw):
        lists = [words]
    elif not row.location.stride and not _counts_or_is(lists[0], words):  # not of a CoNLL file
        lists = [words, *(column for column in lists if list(map(str, column)) != words)]
    for cells in zip(*lists, predicted, strict=True):
        yield [str(cell) for cell in cells]


def _counts_or_is(column: Sequence[Any], words: Sequence[str]) -> bool:
    """Tell whether a column is that of the words, or counts them, as the first column of CoNLL-U does."""
    cells = list(map(str, column))
    return cells == words or all(cell.isdecimal() for cell in cells)


def prediction_to_json(prediction: Prediction) -> JSON:
    """Return a prediction as JSON values, under the names of the columns that are written."""
    value = prediction.value
    values: JSON = {"prediction": [_label_to_json(v) for v in value] if isinstance(value, tuple) else value}
    if prediction.confidence is not None:
        values["confidence"] = round(prediction.confidence, 6)
    if prediction.probabilities is not None:
        values["probabilities"] = {label: round(p, 6) for label, p in prediction.probabilities.items()}
    if prediction.prediction_set is not None:
        values["prediction_set"] = list(prediction.prediction_set)
    return values


def _label_to_json(value: str | Entity) -> Any:
    return value if isinstance(value, str) else {**value._asdict(), "confidence": round(value.confidence, 6)}


def _to_columns(prediction: Prediction, label_delimiter: str | None) -> dict[str, Any]:
    values = prediction_to_json(prediction)
    labels = values["prediction"]
    if isinstance(labels, list) and (prediction.tags is not None or label_delimiter is None):
        values["prediction"] = json.dumps(values["prediction"], ensure_ascii=False)
    elif isinstance(labels, list):
        values["prediction"] = str(label_delimiter).join(labels)
    if "prediction_set" in values:
        values["prediction_set"] = json.dumps(values["prediction_set"], ensure_ascii=False)
    probabilities = values.pop("probabilities", {})
    return {**values, **{f"p_{label}": p for label, p in probabilities.items()}}


def to_cell(value: Any) -> Any:
    """Return a value as a cell of csv: lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
