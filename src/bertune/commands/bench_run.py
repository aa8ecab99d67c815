"""One run of a bench, in a process of its own: trains, keeps scores and predictions, and drops the model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bertune.artifact.read import read_artifact, read_metadata
from bertune.catalog.leaderboard import write_submission
from bertune.catalog.sets import split_name
from bertune.catalog.use import named_rows
from bertune.commands.predict import predict
from bertune.commands.train import prepare, train
from bertune.config.load import read_config
from bertune.console import Console
from bertune.errors import BertuneError, ConfigError, Interrupted
from bertune.files import locked, read_json_object, remove_folder
from bertune.selection.bench.process import receive_job
from bertune.selection.bench.records import RunRecord, machine_facts, write_predictions, write_record
from bertune.tasks.base.datasets import read_datasets
from bertune.training.resume import rounding_environment
from bertune.training.run import TrainResult
from bertune.types import JSON, Prediction, Scores

MODULE = "bertune.commands.bench_run"


def run_job(job: JSON) -> RunRecord:
    """Train a run of a bench, or go on with it, and write what it came to.

    Args:
        job: `settings` of the run with its folder, `record` and `predictions` to write, `keep` the model or
            not, `files` that are read, and what to predict for a leaderboard: `submission`, or None.

    Returns:
        The record, which has been written.

    Raises:
        Interrupted: a signal came; a checkpoint is written.
    """
    began = time.perf_counter()
    settings, record_path = job["settings"], Path(job["record"])
    folder = Path(settings["out"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(record_path, lambda owner: Console().info(f"waits for {owner}")):
        resumed = (folder / "run.yaml").is_file()
        try:
            record = _train(settings, Path(job["predictions"]), resumed, began)
            summary = {**record.summary, "kept": job["keep"], "files": job["files"]}
            record = replace(record, summary=summary, notes=_submit(job["submission"], settings, record))
        except BertuneError as error:
            record = RunRecord(str(error), resumed=resumed, wall_seconds=time.perf_counter() - began)
        except Exception as error:  # a bug, or memory of the device that ran out: the other runs go on
            traceback.print_exc()
            words = f"{type(error).__name__}: {error}"
            record = RunRecord(words, resumed=resumed, wall_seconds=time.perf_counter() - began)
        write_record(record_path, record)
        if record.is_done and not job["keep"]:
            remove_folder(folder)
    return record


def _train(settings: JSON, predictions: Path, resumed: bool, began: float) -> RunRecord:
    result = _train_or_go_on(settings, resumed)
    folder = result.folder
    dev = result.predictions.get("dev")
    resumed = resumed or dev is None  # a run that was finished may have been resumed before
    if dev is None and "dev" in result.scores and not predictions.is_file():
        dev = _predict_dev(settings, folder)
    if dev is not None:
        write_predictions(predictions, dev)
    batch_size = read_config(folder / "run.yaml")["train"]["batch_size"]
    summary = {**read_json_object(folder / "scores.json")["run"], "batch_size": batch_size}
    data = read_metadata(folder)["data"]
    return RunRecord(
        "",
        dict(result.scores),
        summary,
        data,
        resumed,
        time.perf_counter() - began,
        machine_facts(rounding_environment(), summary),
    )


def _train_or_go_on(settings: JSON, resumed: bool) -> TrainResult:
    """Train; begin anew where the data has changed since a run was stopped."""
    try:
        return train(settings, resume=True)
    except ConfigError as error:
        if not (resumed and str(error).startswith("--resume: the data has changed")):
            raise
        Console().info(f"note: begins anew: {str(error).removeprefix('--resume: ')}")
        remove_folder(Path(settings["out"]))
        return train(settings, resume=True)


def _submit(wanted: JSON | None, settings: JSON, record: RunRecord) -> tuple[str, ...]:
    """Predict the test rows of named sets for their leaderboards; return why not, a line a set.

    Args:
        wanted: `sets`, their `root`, the `folder` to write into, and the dev score `to_beat` or None.
        settings: of the run.
        record: of the run.
    """
    score = record.scores.get("dev")
    if wanted is None or (score is not None and not _beats(score, wanted["to_beat"])):
        return ()
    root = [] if wanted["root"] is None else [f"data.root={wanted['root']}"]
    folder, device, reasons = Path(wanted["folder"]), settings.get("device", "auto"), []
    folder.mkdir(exist_ok=True)
    for name in wanted["sets"]:
        try:
            source, _ = named_rows(name, root, "test", lambda _: None)
            found = predict(settings["out"], name, root, device=device, console=Console())
            write_submission(split_name(name)[0], found.results, folder, source)
        except BertuneError as error:
            text = str(error)
            reasons.append(text if text.startswith(name) else f"{name}: {text}")
    return tuple(reasons)


def _beats(score: Scores, best: float | None) -> bool:
    if best is None:
        return True
    return score.main_value > best if score.higher_is_better else score.main_value < best


def _predict_dev(settings: JSON, folder: Path) -> Sequence[Prediction]:
    """Predict the dev rows of a finished run: its process was killed before it had kept the predictions."""
    run, task = prepare(settings)
    splits = read_datasets(run, task, Console(quiet=True))
    artifact = read_artifact(folder, None, run.model_code, lambda _: None)
    return artifact.pipeline(run.device, "auto").predict_examples(splits.dev, to_score=True).predictions


def main() -> None:
    """Run the job that comes through standard input; exit code 2 if it failed."""
    job = receive_job()
    try:
        record = run_job(job)
    except Interrupted as stopped:
        Console().info(f"bertune: {stopped}")
        raise SystemExit(128 + stopped.number) from None
    if not record.is_done:
        Console().info(f"bertune: {record.message}")
        raise SystemExit(2)


if __name__ == "__main__":
    main()
