"""`bertune train`: settings, data and model to a finished folder. A newcomer starts reading here."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bertune import distributed
from bertune.artifact.artifact import Artifact
from bertune.artifact.base_model import take_over
from bertune.config.load import idle_settings, read_config, resolve_config
from bertune.config.schema import RunConfig
from bertune.console import Console, duration, prefixed
from bertune.errors import ConfigError
from bertune.kernels.allocator import limit_kernel_caches, retain_freed_memory
from bertune.kernels.precision import choose_device
from bertune.tasks import load_task
from bertune.tasks.base.datasets import encode_datasets, read_datasets
from bertune.tasks.base.reading import Splits
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Note, Task
from bertune.training.build import BuiltModel, build_model, check_model
from bertune.training.launch import apply_launcher_settings, build_accelerator, check_environment
from bertune.training.listener import Listener
from bertune.training.resume import (
    RunDir,
    choose_run_dir,
    finished_scores,
    is_run_dir,
    settings_to_resume,
)
from bertune.training.rng import seed_everything
from bertune.training.run import TrainingRun, TrainResult
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
        source: a run file, the name of a task, or the settings as a dictionary; with `resume` also the folder
            of a run.
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
    run, task = _resolve(settings_to_resume(source) if resume else source, overrides)
    _check_run(run, task)
    if not (resume and is_run_dir(source)):  # whose run file says what was used
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
    check_model(run)
    splits = read_datasets(run, task, console)
    result = train_on(run, task, splits, listeners, run_dir=run_dir, console=console)
    console.info(f"done in {duration(time.perf_counter() - began)}")
    return result


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
    run, task = _resolve(source, overrides)
    return take_over(run, task, note), task


def _resolve(source: str | Path | dict[str, Any], overrides: Sequence[str]) -> tuple[RunConfig, Task]:
    raw = read_config(source, overrides)
    if not isinstance(raw.get("task"), str):
        raise ConfigError("task: must be given, such as task: classify")
    task_class = load_task(raw["task"])
    run, options = resolve_config(raw, task_class.Options)
    return run, task_class(options, run.data)


def train_on(
    run: RunConfig,
    task: Task,
    splits: Splits,
    listeners: Sequence[Listener] = (),
    *,
    run_dir: RunDir | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Fine-tune on examples that have been read, so that several runs can share them.

    Args:
        run: the settings, such as `prepare` returns them.
        task: the task of `prepare`; it has learnt from the training rows (`task.fit`, as `read_datasets`
            does). The run has its own copy.
        splits: the examples of each split.
        listeners: hear what happens.
        run_dir: where the run is written, and what it goes on from; without it `run.out`, which must be new.
        console: shows progress; without it nothing is shown.

    Raises:
        BertuneError: see `train`.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint is written.
    """
    task = copy.deepcopy(task)  # a run tunes it on the dev rows, which must not reach the next one
    console = console or Console(quiet=True)
    run_dir = run_dir or choose_run_dir(run, resume=False, note=prefixed(console, "resume"))
    _check_batch_size(run, task, splits)
    retain_freed_memory()
    limit_kernel_caches(128)  # a step uses about this many shapes; a smaller cache costs 6 % of its time
    accelerator, numerics, reason = build_accelerator(run, run_dir.path)
    seed_everything(run.seed)
    built = build_model(run, task)
    built.model.encoder.set_numerics(numerics)
    precision = built.model.encoder.numerics.precision
    if precision != numerics.precision:
        reason = f"since transformers cannot compute this encoder in {numerics.precision}"
    console.info(f"task: {task.describe()}")
    console.info(f"rows: {len(splits.train)} train, {len(splits.dev)} dev, {len(splits.test)} test")
    console.info(f"output: {run_dir.path}")
    _show_model(console, run, built, f"computes in {precision} on {accelerator.device.type}, {reason}")
    _use_search_prompts(task, splits, console)
    datasets = encode_datasets(run, task, built.tokenizer, splits, console)
    meta = {"max_length": built.tokenizer.max_length, "data": splits.fingerprint}
    artifact = Artifact(built.model, task, built.tokenizer, run, meta)
    return TrainingRun(artifact, datasets, splits, run_dir, accelerator, console, listeners).run()


def _use_search_prompts(task: Task, splits: Splits, console: Console) -> None:
    """Let rows that are searches have the prompts in training that they get in `evaluate` and `search`."""
    if not isinstance(task, SentenceTask):
        return
    query, document = task.search_prompts = task.prompts_of_search()
    first = splits.train[0]
    if (query, document) != (task.prompt, task.prompt) and task.uses_search_prompts(first):
        console.info(f"data: queries get the prompt {query!r}, texts to find {document!r}")


def _check_run(run: RunConfig, task: Task) -> None:
    if run.data.train is None:
        raise ConfigError("data.train: must be given, such as data.train=reviews.csv")
    if run.train.r_drop and type(task).divergence is Task.divergence:
        raise ConfigError(f"train.r_drop: task {run.task} has no distance between two passes; leave it out")
    if run.train.fsdp and task.uses_whole_batch:
        raise ConfigError(
            "train.fsdp: a loss over a whole batch needs the whole model in every process; leave it out"
        )


def _check_batch_size(run: RunConfig, task: Task, splits: Splits) -> None:
    rows = min(run.train.batch_size, len(splits.train))
    if rows < task.min_batch_size:
        raise ConfigError(
            f"train.batch_size: a batch of {rows} has no other row to compare with, so nothing would be "
            "learnt; "
            f"at least {task.min_batch_size} rows are needed"
        )


def _show_model(console: Console, run: RunConfig, built: BuiltModel, precision: str) -> None:
    millions = sum(p.numel() for p in built.model.parameters()) / 1e6
    console.info(
        f"model: {run.model}, {built.model.encoder.model_type}, {millions:.1f} M parameters; {precision}"
    )
    for note in built.report.notes:
        console.info(f"model: {note}")
    for line in built.describe():
        console.info(f"weights: {line}")
