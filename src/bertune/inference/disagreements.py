"""The rows on which models differ, as a file: csv, tsv or JSON lines, in the order of the rows."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertune.errors import ConfigError
from bertune.inference.paired_rows import PairedRows
from bertune.inference.writers import free_column_names, open_output, prediction_to_json, to_cell
from bertune.metrics.classification import Bools
from bertune.types import JSON, Example, Prediction, Row, Span

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}


@dataclass(frozen=True)
class ComparedRows:
    """Rows with the predictions of several models.

    Attributes:
        names: (m,) of the models.
        labels: (m,) for each model its labels, in the order of the probabilities of a row; empty without any.
        rows: (n,) as the file has them.
        examples: (n,) with targets.
        predictions: (m, n) of each model.
        paired: how they are compared.
    """

    names: Sequence[str]
    labels: Sequence[Sequence[str]]
    rows: Sequence[Row]
    examples: Sequence[Example]
    predictions: Sequence[Sequence[Prediction]]
    paired: PairedRows


def differing(paired: PairedRows, num_models: int) -> Bools:
    """Return for each example whether any two models predict differently."""
    each = [paired.differ(0, other) for other in range(1, num_models)]
    return np.asarray(np.any(each, axis=0))


def check_output(path: str) -> None:
    """Check that a file of disagreements can be written, by its name and its folder.

    Raises:
        ConfigError: it cannot.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ConfigError(f"-o {path}: the name must end in .jsonl, .csv or .tsv")
    if Path(path).is_dir():
        raise ConfigError(f"-o {path}: is a folder; give the name of a file")
    if not Path(path).parent.is_dir():
        raise ConfigError(f"-o {path}: there is no folder {str(Path(path).parent)!r}; make it first")


def write_disagreements(path: str, compared: ComparedRows) -> int:
    """Write the rows on which any two models differ; return how many.

    A row has its location, all columns of the file, the gold label, and for each model the prediction, and
    where there is one its confidence, whether it is right, and its error.

    Raises:
        ConfigError: the file cannot be written.
    """
    chosen = np.flatnonzero(differing(compared.paired, len(compared.names))).tolist()
    columns = dict.fromkeys(name for n in range(len(compared.rows)) for name in _source_columns(compared, n))
    records = _records(compared, chosen)
    values = dict.fromkeys(name for record in records or _records(compared, [0]) for name in record)
    names = free_column_names(columns, values)
    location, *others = names.values()
    header = [location, *columns, *others]
    with open_output(path, sys.stdout) as file:
        kind = FORMATS[Path(path).suffix.lower()]
        writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
        if kind != "jsonl":
            writer.writerow(header)
        for n, record in zip(chosen, records, strict=True):
            row = {**_source_columns(compared, n), **{names[name]: v for name, v in record.items()}}
            if kind == "jsonl":
                ordered = {name: row[name] for name in header if name in row}
                file.write(json.dumps(ordered, ensure_ascii=False, default=str) + "\n")
            else:
                writer.writerow([_to_cell(row.get(name)) for name in header])
    return len(chosen)


def _to_cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else to_cell(value)


def _source_columns(compared: ComparedRows, index: int) -> JSON:
    """Return the columns of a row of the file; the text of a sentence where a word is a row."""
    row = compared.rows[index]
    return {"text": compared.examples[index].texts[0]} if row.word_records else row.raw


def _records(compared: ComparedRows, chosen: Sequence[int]) -> list[JSON]:
    """Return what is written beside the columns of the file, for each chosen row."""
    models = range(len(compared.names))
    right = [compared.paired.right(n) for n in models]
    numbers = [compared.paired.row_numbers(n) for n in models]
    records = []
    for index in chosen:
        example = compared.examples[index]
        record: JSON = {"location": str(example.location)}
        if example.target is not None:
            record["gold"] = _target_to_json(example)
        for n, name in enumerate(compared.names):
            prediction = compared.predictions[n][index]
            record[f"prediction_{name}"] = prediction_to_json(prediction)["prediction"]
            confidence = _confidence(compared, n, index)
            if confidence is not None:
                record[f"confidence_{name}"] = confidence
            is_right = right[n]
            if is_right is not None:
                record[f"right_{name}"] = bool(is_right[index])
            for what, values in numbers[n].items():
                record[f"{what}_{name}"] = round(float(values[index]), 6)
        records.append(record)
    return records


def _confidence(compared: ComparedRows, model: int, index: int) -> Any:
    """Return the confidence of a prediction; of several labels that of each that is gold or predicted."""
    prediction = compared.predictions[model][index]
    if prediction.confidence is not None:
        return round(prediction.confidence, 6)
    target, labels = compared.examples[index].target, compared.labels[model]
    if not isinstance(target, tuple) or not labels:
        return None
    by_label = prediction.probabilities
    if by_label is None and prediction.vectors is not None:
        by_label = dict(zip(labels, map(float, prediction.vectors[0]), strict=True))
    shown = dict.fromkeys(
        [*target, *(label for rows in compared.predictions for label in _labels(rows[index]))]
    )
    return None if by_label is None else {label: round(by_label[label], 6) for label in shown}


def _labels(prediction: Prediction) -> tuple[Any, ...]:
    return prediction.value if isinstance(prediction.value, tuple) else ()


def _target_to_json(example: Example) -> Any:
    """Return a target as a JSON value: spans with their text."""
    target = example.target
    if not isinstance(target, tuple):
        return target
    return [
        {**part._asdict(), "text": example.texts[0][part.start : part.end]}
        if isinstance(part, Span)
        else part
        for part in target
    ]
