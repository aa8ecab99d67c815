"""`bertune train`: settings, data and model to a finished folder. A newcomer starts reading here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bertune import distributed
from bertune.artifact.base_model import take_over
from bertune.catalog.use import read_settings
from bertune.config.load import idle_settings, resolve_config
from bertune.config.new_encoder import NEW, NewEncoder, new_encoder_faults
from bertune.config.schema import RunConfig
from bertune.console import Console, duration, prefixed
from bertune.errors import ConfigError
from bertune.kernels.precision import choose_device
from bertune.tasks import load_task
from bertune.tasks.base.datasets import read_datasets
from bertune.tasks.base.task import Note, Task
from bertune.training.build import check_model
from bertune.training.launch import apply_launcher_settings, check_environment
from bertune.training.listener import Listener
from bertune.training.new_encoder import new_encoder_of
from bertune.training.resume import (
    RunDir,
    choose_run_dir,
    finished_scores,
    is_run_dir,
    settings_to_resume,
)
from bertune.training.run import TrainResult
from bertune.training.setup import train_on
from bertune.types import JSON


def train(
    source: str | Path | dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    quiet: bool = False,
    resume: bool = False,
    listeners: Sequence[Listener] = (),
) -> TrainResult:
    """Fine-tune an encoder.

    Args:
        source: a run file, the name of a task or of a set such as glue:cola, or the settings as a dictionary;
            with `resume` also the folder of a run.
        overrides: `section.name=value`, applied to the settings.
        quiet: write nothing to stderr.
        resume: go on from the newest complete checkpoint, bit for bit; without one the run begins, and a
            finished run is left as it is.
        listeners: hear what happens; see `bertune.Listener`.

    Raises:
        BertuneError: see `bertune.errors`; nothing has been written when settings or data are wrong.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint is written.
    """
    began = time.perf_counter()
    notes: list[str] = []
    run, task = resolve_run(settings_to_resume(source) if resume else source, overrides, notes.append)
    check_run(run, task)
    is_new = new_encoder_of(run, task) is not None
    if is_new and (Path(NEW) / "config.json").is_file():
        notes.append("model: new begins from nothing; for the folder of that name write model=./new")
    elif not (resume and is_run_dir(source)):  # whose run file says what was used
        run = take_over(run, task, notes.append)
    run = apply_launcher_settings(run, notes.append)
    distributed.init(use_cpu=choose_device(run.device).type == "cpu")
    console = Console(quiet or distributed.rank() > 0)
    for line in notes:
        console.info(f"note: {line}")
    run_dir = choose_run_dir(
        run, resume=resume, note=prefixed(console, "resume"), option_defaults=_option_defaults(task)
    )
    if run_dir.finished:
        console.info(f"resume: the run in {str(run_dir.path)!r} is finished; nothing is left to do")
        return TrainResult(run_dir.path, finished_scores(run_dir.path))
    for line in idle_settings(run):
        console.info(f"note: {line}")
    check_environment(run)
    if not is_new:  # a new encoder is made of the rows
        _check_model(run, run_dir)
    splits = read_datasets(run, task, console)
    if not splits.dev:
        console.info(
            "note: data.dev_fraction=0: trains on all rows; no dev score exists, the last model is kept"
        )
    result = train_on(run, task, splits, listeners, run_dir=run_dir, console=console)
    console.info(f"done in {duration(time.perf_counter() - began)}")
    return result


def _check_model(run: RunConfig, run_dir: RunDir) -> None:
    """Refuse an encoder that cannot be run; of a run that goes on, also say what it is needed for."""
    try:
        check_model(run)
    except ConfigError as error:
        if run_dir.checkpoint is None:
            raise
        raise ConfigError(
            f"{error}; the run in {str(run_dir.path)!r} goes on with the model that it began with only: its "
            "tokenizer, and the word vectors that are not trained, come from there"
        ) from None


def _option_defaults(task: Task) -> JSON:
    """Return the default of each option of a task; nothing where some have none."""
    try:
        return type(task).Options().model_dump(mode="json")
    except ValidationError:
        return {}


def prepare(
    source: str | Path | dict[str, Any], overrides: Sequence[str] = (), note: Note = lambda _: None
) -> tuple[RunConfig, Task]:
    """Check a run's settings and build its task.

    Settings that are not given have the values of the model's folder, where that makes sentence vectors.

    Args:
        source: a run file, the name of a task, or the settings as a dictionary.
        overrides: `section.name=value`, applied to the settings.
        note: called with each line that a user should see.

    Raises:
        ConfigError: settings are wrong; all of them are named.
        TaskNotFound: there is no such task.
    """
    run, task = resolve_run(source, overrides, note)
    return take_over(run, task, note), task


def resolve_run(
    source: str | Path | dict[str, Any], overrides: Sequence[str], note: Note
) -> tuple[RunConfig, Task]:
    """Return the settings of a run, checked, and its task, which has learned nothing yet.

    Raises:
        ConfigError: settings are wrong; all of them are named.
        TaskNotFound: there is no such task.
    """
    raw = read_settings(source, overrides, note)
    of_search = [name for name in ("search", "tune") if raw.pop(name, None) is not None]
    if of_search:
        note(f"{' and '.join(of_search)}: for bertune tune; here the other settings count, as they are")
    if not isinstance(raw.get("task"), str):
        raise ConfigError("task: must be given, such as task: classify")
    task_class = load_task(raw["task"])
    run, options = resolve_config(raw, task_class.Options)
    return run, task_class(options, run.data)


def check_run(run: RunConfig, task: Task) -> None:
    """Check that a run has rows to train on, and that its settings fit its task.

    Raises:
        ConfigError: they do not.
    """
    if run.data.train is None:
        raise ConfigError("data.train: must be given, such as data.train=reviews.csv")
    if run.out is not None and _holds(run.out, run.model):
        raise ConfigError(
            f"out: {run.out!r} holds the model {run.model!r} that the run begins from, which it would write "
            "over; give another folder"
        )
    given = getattr(task.options, "new", None)
    given = given if isinstance(given, NewEncoder) else None
    if faults := new_encoder_faults(run, task.own_encoder(), given):
        raise ConfigError(
            faults[0] if len(faults) == 1 else "\n".join([f"{len(faults)} settings are wrong:", *faults])
        )
    if run.train.r_drop and type(task).divergence is Task.divergence:
        raise ConfigError(f"train.r_drop: task {run.task} has no distance between two passes; leave it out")
    if run.train.fsdp and task.uses_whole_batch:
        raise ConfigError(
            "train.fsdp: a loss over a whole batch needs the whole model in every process; leave it out"
        )


def _holds(out: str, model: str) -> bool:
    """Tell whether the folder of a model is that of a run, or a folder inside it."""
    folder = Path(model)
    return folder.is_dir() and folder.resolve().is_relative_to(Path(out).resolve())
