"""Predictions as csv, JSON lines or CoNLL columns, with every column of the input and in its order."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bertune.errors import ConfigError, DataError
from bertune.files import part_of
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
            raise ConfigError(f"--format: {asked!r} is none of csv, jsonl, conll")
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
        ConfigError: the file cannot be written.
    """
    if path is None:
        yield stdout
        return
    part = part_of(Path(path))
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def write_jsonl(file: IO[str], results: Iterable[tuple[Row, Prediction]]) -> int:
    """Write a JSON object a row, as they come; return how many rows."""
    count = 0
    for row, prediction in results:
        values = _to_json(prediction)
        names = free_column_names(row.raw, values)
        columns = {**row.raw, **{names[name]: value for name, value in values.items()}}
        file.write(json.dumps(columns, ensure_ascii=False, default=str) + "\n")
        file.flush()
        count += 1
    return count


def write_csv(
    file: IO[str],
    header: list[str],
    results: Iterable[tuple[Row, Prediction]],
    label_delimiter: str | None = None,
) -> int:
    """Write a header and a line a row; return how many rows.

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
        values = _to_columns(prediction, label_delimiter)
        if not count:
            header = header or list(row.raw)
            names = free_column_names(header, values)
            writer.writerow([*header, *names.values()])
        extra = [column for column in row.raw if column not in header]
        if extra:
            raise DataError(
                f"{row.location}: the column {extra[0]!r} is not in the first row; write JSON lines instead: "
                "--format jsonl"
            )
        writer.writerow(
            [*(_cell(row.raw.get(column)) for column in header), *(values[name] for name in names)]
        )
        count += 1
    return count


def write_conll(file: IO[str], results: Iterable[tuple[Row, Prediction]]) -> int:
    """Write a word a line; return how many rows.

    A line has the columns of a CoNLL input, or the word, and then the tag, with tabs between them. An empty
    line ends each row.

    Raises:
        ConfigError: the model gives no tags.
    """
    count = 0
    for row, prediction in results:
        if prediction.tags is None:
            raise ConfigError("--format conll: this model gives no tag for each word; use csv or jsonl")
        lists = [v for v in row.raw.values() if isinstance(v, list) and len(v) == len(prediction.tags)]
        columns = lists if len(lists) == len(row.raw) else [[word for word, _ in prediction.tags]]
        tags = [tag for _, tag in prediction.tags]
        file.write(
            "".join("\t".join(map(str, cells)) + "\n" for cells in zip(*columns, tags, strict=True)) + "\n"
        )
        file.flush()
        count += 1
    return count


def _to_json(prediction: Prediction) -> JSON:
    value = prediction.value
    values: JSON = {"prediction": [_label_to_json(v) for v in value] if isinstance(value, tuple) else value}
    if prediction.confidence is not None:
        values["confidence"] = round(prediction.confidence, 6)
    if prediction.probabilities is not None:
        values["probabilities"] = {label: round(p, 6) for label, p in prediction.probabilities.items()}
    return values


def _label_to_json(value: str | Entity) -> Any:
    return value if isinstance(value, str) else {**value._asdict(), "confidence": round(value.confidence, 6)}


def _to_columns(prediction: Prediction, label_delimiter: str | None) -> dict[str, Any]:
    values = _to_json(prediction)
    labels = values["prediction"]
    if isinstance(labels, list) and (prediction.tags is not None or label_delimiter is None):
        values["prediction"] = json.dumps(values["prediction"], ensure_ascii=False)
    elif isinstance(labels, list):
        values["prediction"] = str(label_delimiter).join(labels)
    probabilities = values.pop("probabilities", {})
    return {**values, **{f"p_{label}": p for label, p in probabilities.items()}}


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
