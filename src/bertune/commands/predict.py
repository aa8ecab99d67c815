"""`bertune predict`: predictions of a saved model for every row of a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bertune import distributed
from bertune.artifact.read import read_artifact
from bertune.catalog.use import named_rows
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.console import Console, prefixed
from bertune.data.formats import detect_format
from bertune.data.records import BadRows
from bertune.errors import ConfigError
from bertune.files import expand_user
from bertune.inference.pipeline import Pipeline
from bertune.kernels.precision import choose_device
from bertune.tasks.base.calibration import PredictionSet
from bertune.tasks.base.reading import iter_examples
from bertune.tasks.base.task import Task
from bertune.types import Example, Prediction, Row


@dataclass(frozen=True)
class FilePredictions:
    """The rows of a file with their predictions."""

    column_names: list[str]
    """Every column of the file; empty for standard input."""
    format: str
    """csv, tsv, json, jsonl, parquet, conll, hub or lines."""
    label_delimiter: str | None
    """What stands between the labels of a multi-label prediction in csv; None for a list in JSON."""
    results: Iterator[tuple[Row, Prediction]]
    """In the order of the file; each row is predicted when it is asked for."""


def predict(  # noqa: PLR0913  (what a user can choose)
    folder: str | Path,
    file: str | Path,
    overrides: Sequence[str] = (),
    *,
    coverage: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    model_code: str = "never",
    task: str | None = None,
    console: Console | None = None,
) -> FilePredictions:
    """Predict a file row by row, in its order, in memory that does not grow with it.

    Several processes share the work, and each has the result. A file is first read to its end, so that a bad
    row ends the call before the first prediction. Standard input ("-") is read once.

    Args:
        folder: what `train` has written.
        file: a data file, or "-"; or a named set such as glue:cola (its test rows; glue:cola:dev says which).
        overrides: `data.name=value`, how to read the file.
        coverage: how often the `prediction_set` of a row shall hold the truth, such as 0.9; without it rows
            have no such set. The model must have been calibrated.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        model_code: "trusted" runs the Python code that the folder brings for its encoder; read it first.
        task: the Python file of a task of your own.
        console: shows progress; without it nothing is shown.

    Raises:
        BertuneError: the folder, a setting or a row cannot be used.
    """
    file = expand_user(file)
    distributed.init(use_cpu=choose_device(device).type == "cpu")
    if file == "-" and distributed.num_processes() > 1:
        raise ConfigError(
            "standard input cannot be read by several processes; give a file, or start one process"
        )
    console = console or Console(quiet=True)
    file, overrides = named_rows(file, overrides, "test", prefixed(console))
    artifact = read_artifact(folder, task, model_code, lambda line: console.info(f"note: {line}"))
    data = reading_config(artifact.run_config.data, file, overrides)
    artifact = artifact.for_reading(data)
    to_set = None if coverage is None else artifact.task.prediction_sets(coverage, prefixed(console))
    return FilePredictions(
        [] if file == "-" else _read_column_names(file, artifact.task, data, console),
        detect_format(file, data, artifact.task.columns),
        data.label_delimiter,
        _with_sets(_predict_rows(artifact.pipeline(device, precision), file, data, console), to_set),
    )


def _with_sets(
    results: Iterator[tuple[Row, Prediction]], to_set: Callable[[Prediction], PredictionSet] | None
) -> Iterator[tuple[Row, Prediction]]:
    """Add to each prediction its set of labels, or its interval."""
    if to_set is None:
        return results
    return ((row, replace(p, prediction_set=to_set(p))) for row, p in results)


def _read_column_names(file: str, task: Task, data: DataConfig, console: Console) -> list[str]:
    """Read a file to its end, check every row, and return the columns of all rows."""
    column_names: dict[str, None] = {}
    bad_rows = BadRows(skip=data.bad_rows == "skip")
    for row, _ in iter_examples(file, task, data, bad_rows, prefixed(console), require_target=False):
        column_names.update(dict.fromkeys(row.raw))
    for line in bad_rows.finish():
        console.info(f"data: {line}")
    return list(column_names)


def _predict_rows(
    pipeline: Pipeline, file: str, data: DataConfig, console: Console
) -> Iterator[tuple[Row, Prediction]]:
    bad_rows = BadRows(skip=data.bad_rows == "skip")
    pending: deque[Row] = deque()
    note = prefixed(console) if file == "-" else lambda _: None  # a file was read before, and noted then

    def examples() -> Iterator[Example]:
        rows = iter_examples(file, pipeline.task, data, bad_rows, note, require_target=False)
        for row, example in rows:
            pending.append(row)
            yield example

    for prediction in pipeline.predict_stream(examples()):
        yield pending.popleft(), prediction
    for line in bad_rows.finish():
        if file == "-":
            console.info(f"data: {line}")
    for line in pipeline.task.report():
        console.info(f"data: {line}")
    if pipeline.num_truncated_rows:
        console.info(
            f"data: {pipeline.num_truncated_rows} rows are longer than max_length "
            f"{pipeline.tokenizer.max_length} and were cut"
        )
