"""`bertune calibrate`: makes the probabilities of a saved model true, on a file with targets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bertune import distributed
from bertune.artifact.artifact import Artifact
from bertune.artifact.model_card import rewrite_calibration
from bertune.artifact.read import read_artifact, read_metadata
from bertune.artifact.write import write_calibration
from bertune.catalog.use import named_rows
from bertune.config.reading import reading_config
from bertune.console import Console, prefixed
from bertune.errors import ConfigError
from bertune.files import expand_user, is_remote
from bertune.kernels.precision import choose_device
from bertune.tasks.base.calibration import CalibrationReport, CalibrationRequest
from bertune.tasks.base.reading import check_examples, read_examples
from bertune.tasks.base.task import Task


def calibrate(  # noqa: PLR0913  (what a user can choose)
    folder: str | Path,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    method: str = "auto",
    target_precision: float | None = None,
    costs: Mapping[str, float] | None = None,
    device: str = "auto",
    precision: str = "auto",
    model_code: str = "never",
    task: str | None = None,
    console: Console | None = None,
) -> CalibrationReport:
    """Learn calibration on a file that the model was not trained on, and save it in the folder.

    Only bertune.json and README.md change. Several processes share the predictions; the first one writes.

    Args:
        folder: what `train` has written.
        file: a data file with targets. Without it `method` must be none.
        overrides: `data.name=value`, how to read the file.
        method: auto (temperature for one label a row, Platt scaling for several), temperature, platt; none
            takes calibration away, or leaves probabilities as they are where thresholds are asked for.
        target_precision: choose the lowest threshold whose precision on the file is so high.
        costs: choose the threshold with the least cost, {"false_positive": 1, "false_negative": 5}.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16; or int8, on processors with units for it.
        model_code: "trusted" runs the Python code that the folder brings for its encoder; read it first.
        task: the Python file of a task of your own.
        console: shows progress; without it nothing is shown.

    Returns:
        How good probabilities are on the file before, and after: each half of its rows with what was learnt
        on the other half.

    Raises:
        BertuneError: the folder, a setting or a row cannot be used; nothing has been written then.
    """
    console = console or Console(quiet=True)
    path = Path(expand_user(folder))
    read_metadata(path)  # refuses what is no folder of bertune here, where the result is saved
    asked = CalibrationRequest(method, target_precision, costs)
    if faults := asked.faults():
        raise ConfigError("calibrate: " + "; ".join(faults))
    takes_away = method == "none" and not asked.chooses_thresholds
    if file is None and not takes_away:
        raise ConfigError("calibrate: give a FILE with targets, on which the model was not trained")
    distributed.init(use_cpu=choose_device(device).type == "cpu")
    artifact = read_artifact(path, task, model_code, lambda line: console.info(f"note: {line}"))
    request = asked if takes_away else _with_settings(asked, artifact.task)
    artifact.task.check_calibration(request)
    report = CalibrationReport(None)
    if file is None:
        artifact.task.reset_calibration()
    else:
        source = expand_user(file)
        source, overrides = named_rows(source, overrides, "dev", prefixed(console), scored=True)
        for line in known_rows(artifact, source):
            console.info(f"note: {line}")
        report = _learn(artifact, source, overrides, request, device, precision, console)
    if takes_away:
        artifact.task.reset_calibration()
        report = CalibrationReport(None, report.before, None, report.table_before)
    if distributed.rank() == 0:
        write_calibration(path, artifact.task.state().get("calibration"))
        rewrite_calibration(path, artifact.task)
    distributed.barrier()
    return report


def _with_settings(asked: CalibrationRequest, task: Task) -> CalibrationRequest:
    """Return what is asked for; where no thresholds are, with those that the run has asked for."""
    settings = getattr(task.options, "calibration_request", None)
    if asked.chooses_thresholds or settings is None:
        return asked
    return CalibrationRequest(asked.method, settings.target_precision, settings.costs)


def _learn(
    artifact: Artifact,
    file: str,
    overrides: Sequence[str],
    request: CalibrationRequest,
    device: str,
    precision: str,
    console: Console,
) -> CalibrationReport:
    note: Callable[[str], None] = prefixed(console)
    data = reading_config(artifact.run_config.data, file, overrides)
    reading = artifact.for_reading(data)
    task = reading.task
    task.reset_calibration()
    if hasattr(task, "keeps_probabilities"):
        task.keeps_probabilities = True
    examples = read_examples([file], task, data, note, to_score=True)
    examples = check_examples(examples, task, data, note)
    pipeline = reading.pipeline(device, precision)
    predictions = pipeline.predict_examples(examples, to_score=True).predictions
    if pipeline.num_truncated_rows:
        note(f"{pipeline.num_truncated_rows} rows are longer than max_length and were cut")
    rows = f"rows of {Path(file).name}"
    report = task.learn_calibration(
        predictions, examples, request, lambda line: console.info(f"note: {line}"), rows
    )
    artifact.task = task
    return report


def known_rows(artifact: Artifact, file: str) -> list[str]:
    """Say where a file is one that the run has used, as far as its settings tell."""
    data = artifact.run_config.data
    if _is_among(file, data.train):
        return [
            f"{file} is a training file of this model, which is surer of these rows than of new ones; "
            "use rows that it was not trained on"
        ]
    if _is_among(file, data.dev):
        return [f"{file} is the dev file of this model: it chose the checkpoint, which flatters a little"]
    return []


def _is_among(file: str, files: str | list[str] | None) -> bool:
    named = [files] if isinstance(files, str) else files or []
    return os.path.realpath(file) in {os.path.realpath(name) for name in named if not is_remote(name)}
