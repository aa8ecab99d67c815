"""Predictions as csv, JSON lines or CoNLL columns: every input column kept, every row in its place."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bertune.errors import ConfigError, DataError
from bertune.types import JSON, Entity, Prediction, Row

FORMAT_BY_SUFFIX = {
    ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl",
    ".conll": "conll", ".bio": "conll", ".iob": "conll", ".bmes": "conll", ".bioes": "conll",
}  # fmt: skip


def output_format(path: str | None, asked: str | None, source_format: str) -> str:
    """Return csv, jsonl or conll: as asked, else by the name of the output file, else as the input is.

    Raises:
        ConfigError: the name of the output file tells neither.
    """
    if asked is not None:
        if asked not in set(FORMAT_BY_SUFFIX.values()):
            raise ConfigError(f"--format: {asked!r} is none of csv, jsonl, conll")
        return asked
    if path is None:
        return (
            "csv"
            if source_format in {"csv", "tsv", "parquet"}
            else "conll"
            if source_format == "conll"
            else "jsonl"
        )
    kind = FORMAT_BY_SUFFIX.get(Path(path).suffix.lower())
    if kind is None:
        raise ConfigError(
            f"-o {path}: the name must end in .csv, .jsonl or .conll, or --format must say which it is"
        )
    return kind


def free_column_names(columns: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Return a free name for each wanted column: itself, or with "_" after it where the input has it already.

    >>> free_column_names(["text", "prediction"], ["prediction", "confidence"])
    {'prediction': 'prediction_', 'confidence': 'confidence'}
    """
    taken = set(columns)
    result = {}
    for name in wanted:
        free = name
        while free in taken:
            free += "_"
        taken.add(free)
        result[name] = free
    return result


@contextmanager
def open_output(path: str | None, stdout: IO[str]) -> Iterator[IO[str]]:
    """Give a file to write to; it gets its name only when all is written. Without a path: standard output."""
    if path is None:
        yield stdout
        return
    part = Path(path + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def write_jsonl(file: IO[str], results: Iterable[tuple[Row, Prediction]]) -> int:
    """Write one JSON object a row; return how many."""
    count = 0
    for row, prediction in results:
        values = _values(prediction)
        names = free_column_names(row.raw, values)
        file.write(
            json.dumps(
                {**row.raw, **{names[k]: v for k, v in values.items()}}, ensure_ascii=False, default=str
            )
            + "\n"
        )
        file.flush()
        count += 1
    return count


def write_csv(
    file: IO[str], header: list[str], results: Iterable[tuple[Row, Prediction]], label_delimiter: str = "|"
) -> int:
    """Write a header and one line a row; return how many rows.

    Raises:
        DataError: a row has a column that the header lacks (standard input, where rows cannot be looked at first).
    """
    writer = csv.writer(file, lineterminator="\n")
    names: dict[str, str] = {}
    count = 0
    for row, prediction in results:
        flat = _flat(prediction, label_delimiter)
        if not count:
            header = header or list(row.raw)
            names = free_column_names(header, flat)
            writer.writerow([*header, *names.values()])
        extra = [column for column in row.raw if column not in header]
        if extra:
            raise DataError(
                f"{row.location}: the column {extra[0]!r} is not in the first row; write JSON lines instead: --format jsonl"
            )
        writer.writerow([*(_cell(row.raw.get(column)) for column in header), *(flat[name] for name in names)])
        count += 1
    return count


def write_conll(file: IO[str], results: Iterable[tuple[Row, Prediction]]) -> int:
    """Write a word a line: the columns of a CoNLL input, or the word, then a tab and the tag; an empty line after each row.

    Raises:
        ConfigError: the model gives no tags.
    """
    count = 0
    for row, prediction in results:
        if prediction.tags is None:
            raise ConfigError("--format conll: this model gives no tag for each word; use csv or jsonl")
        lists = [v for v in row.raw.values() if isinstance(v, list) and len(v) == len(prediction.tags)]
        kept = lists if len(lists) == len(row.raw) else [[word for word, _ in prediction.tags]]
        tags = [tag for _, tag in prediction.tags]
        file.write(
            "".join("\t".join(map(str, cells)) + "\n" for cells in zip(*kept, tags, strict=True)) + "\n"
        )
        file.flush()
        count += 1
    return count


def _values(prediction: Prediction) -> JSON:
    value = prediction.value
    values: JSON = {"prediction": [_plain(v) for v in value] if isinstance(value, tuple) else value}
    if prediction.confidence is not None:
        values["confidence"] = round(prediction.confidence, 6)
    if prediction.probabilities is not None:
        values["probabilities"] = {label: round(p, 6) for label, p in prediction.probabilities.items()}
    return values


def _plain(value: str | Entity) -> Any:
    return value if isinstance(value, str) else {**value._asdict(), "confidence": round(value.confidence, 6)}


def _flat(prediction: Prediction, label_delimiter: str) -> dict[str, Any]:
    values = _values(prediction)
    if prediction.tags is not None:
        values["prediction"] = json.dumps(values["prediction"], ensure_ascii=False)
    elif isinstance(values["prediction"], list):
        values["prediction"] = label_delimiter.join(values["prediction"])
    by_label = values.pop("probabilities", {})
    return {**values, **{f"p_{label}": p for label, p in by_label.items()}}


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
