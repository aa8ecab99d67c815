"""`bertune predict`: predictions of a saved model for every row of a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertune import distributed
from bertune.artifact.read import read_artifact
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console, prefixed
from bertune.data.formats import BadRows, detect_format
from bertune.errors import ConfigError
from bertune.inference.pipeline import Pipeline
from bertune.kernels.precision import choose_device
from bertune.tasks.base.reading import iter_examples
from bertune.types import Example, Prediction, Row


@dataclass(frozen=True)
class FilePredictions:
    """Rows with what the model says of them, in the order of the file."""

    column_names: list[str]
    """Every column of the file."""
    format: str
    """csv, tsv, json, jsonl, parquet; hub or lines."""
    label_delimiter: str
    """What stands between the labels of a multi-label prediction in csv: what the training files had."""
    results: Iterator[tuple[Row, Prediction]]


def predict(folder: str | Path, file: str, overrides: Sequence[str] = (), **where: Any) -> FilePredictions:
    """Predict a file row by row, in its order, in memory that does not grow with it; several processes share the work.

    A file is first read once to its end, so that a bad row ends the call before anything is given out; standard
    input ("-") is read once only.

    Args:
        folder: what `train` has written.
        file: a data file, or "-".
        overrides: `data.name=value`.
        where: `device`, `precision`, `task` of `load`, and `console`.

    Raises:
        BertuneError: the folder, the settings or a row cannot be used.
    """
    distributed.init(use_cpu=choose_device(where.get("device", "auto")).type == "cpu")
    if file == "-" and distributed.num_processes() > 1:
        raise ConfigError(
            "standard input cannot be read by several processes; give a file, or start one process"
        )
    console = where.pop("console", Console(quiet=True))
    artifact = read_artifact(folder, where.pop("task", None))
    data = reading_config(artifact.run_config.data, file, overrides)
    artifact.task.data = data
    header: dict[str, None] = {}
    if file != "-":
        faults = BadRows(skip=data.bad_rows == "skip")
        for row, _ in iter_examples(
            file, artifact.task, data, faults, prefixed(console), require_target=False
        ):
            header.update(dict.fromkeys(row.raw))
        for line in faults.finish():
            console.info(f"data: {line}")
    joiner = data.label_delimiter or "|"
    return FilePredictions(
        list(header),
        detect_format(file, data, artifact.task.columns),
        joiner,
        _predicted(artifact.pipeline(**where), file, data, console),
    )


def _predicted(
    pipeline: Pipeline, file: str, data: DataConfig, console: Console
) -> Iterator[tuple[Row, Prediction]]:
    faults = BadRows(skip=data.bad_rows == "skip")
    waiting: deque[Row] = deque()

    def examples() -> Iterator[Example]:
        for row, example in iter_examples(
            file, pipeline.task, data, faults, lambda _: None, require_target=False
        ):
            waiting.append(row)
            yield example

    for prediction in pipeline.predict_stream(examples()):
        yield waiting.popleft(), prediction
    for line in faults.finish():
        if file == "-":
            console.info(f"data: {line}")
    for line in pipeline.task.report():
        console.info(f"data: {line}")
    if pipeline.num_truncated_rows:
        console.info(
            f"data: {pipeline.num_truncated_rows} rows are longer than max_length {pipeline.tokenizer.max_length} and were cut"
        )
