"""Settings, a task and its rows to all that training needs; `train_on` trains on rows that have been read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertune.artifact.artifact import Artifact
from bertune.config.schema import RunConfig
from bertune.console import Console, prefixed
from bertune.data.dataset import EncodedDataset
from bertune.errors import ConfigError
from bertune.kernels.allocator import limit_kernel_caches, retain_freed_memory
from bertune.tasks.base.datasets import encode_datasets
from bertune.tasks.base.reading import Splits
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.training.auto_settings import settle_run
from bertune.training.build import BuiltModel, build_model
from bertune.training.launch import build_accelerator
from bertune.training.listener import Listener
from bertune.training.new_encoder import begin_from_nothing
from bertune.training.resume import RunDir, choose_run_dir
from bertune.training.rng import seed_everything
from bertune.training.run import TrainingRun, TrainResult
from bertune.training.warm_start import describe_known_rows
from bertune.types import Scores

if TYPE_CHECKING:
    from accelerate import Accelerator

EncodeRows = Callable[[RunConfig, Task, Tokenizer, Splits, Console], dict[str, EncodedDataset]]
"""Turns the rows of each split into tokens, as `encode_datasets` does."""


@dataclass(frozen=True)
class TrainSetup:
    """A model before its first step, the encoded rows of each split, and the device."""

    artifact: Artifact
    datasets: dict[str, EncodedDataset]
    accelerator: Accelerator


def set_up_training(
    run: RunConfig,
    task: Task,
    splits: Splits,
    out: Path,
    console: Console,
    encode_rows: EncodeRows = encode_datasets,
) -> TrainSetup:
    """Build the model of a run and encode its rows; the same settings and rows give the same bits.

    Args:
        run: the settings.
        task: has learned from the training rows.
        splits: the examples.
        out: the folder of the run, for its trackers.
        console: shows what is built.
        encode_rows: turns rows into tokens.

    Raises:
        ConfigError: the settings do not fit rows, encoder or machine.
        DataError: the rows cannot be encoded.
    """
    _check_batch_size(run, task, splits)
    retain_freed_memory()
    limit_kernel_caches(128)  # a step uses about this many shapes; a smaller cache costs 6 % of its time
    with begin_from_nothing(run, task, splits, out, console) as located:
        return _build_and_encode(run, located, task, splits, out, console, encode_rows)


def _build_and_encode(
    run: RunConfig,
    located: RunConfig,
    task: Task,
    splits: Splits,
    out: Path,
    console: Console,
    encode_rows: EncodeRows,
) -> TrainSetup:
    """Do what `set_up_training` does; `located` names the folder of the encoder, also where that is new."""
    accelerator, numerics, reason = build_accelerator(run, out)
    seed_everything(run.seed)
    built = build_model(located, task)
    built.model.encoder.set_numerics(numerics)
    precision = built.model.encoder.numerics.precision
    if precision != numerics.precision:
        reason = f"since transformers cannot compute this encoder in {numerics.precision}"
    console.info(f"task: {task.describe()}")
    console.info(f"rows: {len(splits.train)} train, {len(splits.dev)} dev, {len(splits.test)} test")
    console.info(f"output: {out}")
    _show_model(console, run, built, f"computes in {precision} on {accelerator.device.type}, {reason}")
    for line in describe_known_rows(located.model, splits.fingerprint):
        console.info(f"model: {line}")
    _use_search_prompts(task, splits, console)
    datasets = encode_rows(run, task, built.tokenizer, splits, console)
    run, chosen = settle_run(run, task, built.model, len(datasets["train"]), built.pretrained_head)
    if chosen:
        console.info(f"auto: {chosen}")
    meta = {"max_length": built.tokenizer.max_length, "data": splits.fingerprint}
    return TrainSetup(Artifact(built.model, task, built.tokenizer, run, meta), datasets, accelerator)


def train_on(
    run: RunConfig,
    task: Task,
    splits: Splits,
    listeners: Sequence[Listener] = (),
    *,
    run_dir: RunDir | None = None,
    console: Console | None = None,
    known_scores: Mapping[str, Scores] | None = None,
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
        known_scores: scores that the folder reports beside its own, for a task that is calibrated already,
            such as `out_of_fold`; the run then learns no decisions from its dev rows.

    Raises:
        BertuneError: see `train`.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint is written.
    """
    task = copy.deepcopy(task)  # a run tunes it on the dev rows, which must not reach the next one
    console = console or Console(quiet=True)
    run_dir = run_dir or choose_run_dir(run, resume=False, note=prefixed(console, "resume"))
    run = run_dir.settle(run)
    setup = set_up_training(run, task, splits, run_dir.path, console)
    return TrainingRun(
        setup.artifact,
        setup.datasets,
        splits,
        run_dir,
        setup.accelerator,
        console,
        listeners,
        known_scores=known_scores,
    ).run()


def _use_search_prompts(task: Task, splits: Splits, console: Console) -> None:
    """Let rows that are searches have the prompts in training that they get in `evaluate` and `search`."""
    if not isinstance(task, SentenceTask):
        return
    query, document = task.search_prompts = task.prompts_of_search()
    first = splits.train[0]
    if (query, document) != (task.prompt, task.prompt) and task.uses_search_prompts(first):
        console.info(f"data: queries get the prompt {query!r}, texts to find {document!r}")


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
