"""From encoded rows to a finished folder: the course of one run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertune import config as settings
from bertune.config import RunConfig
from bertune.data.batching import EncodedRows
from bertune.engine import log, loop
from bertune.engine.step import Fit
from bertune.errors import ArtifactError, ConfigError, Interrupted, TrainingError
from bertune.memory import peak_memory_gb
from bertune.model import Model, gather
from bertune.model.numerics import choose_device, choose_precision
from bertune.resume import Place, checkpoints_of
from bertune.ship import artifact as saved
from bertune.ship.artifact import Artifact
from bertune.ship.card import write_card
from bertune.ship.pipeline import predict_rows
from bertune.talk import Talk, duration
from bertune.tasks.reading import Splits
from bertune.types import Numerics, Prediction, Scores

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Trained:
    """What a training run left behind."""

    folder: Path
    scores: dict[str, Scores]
    """Scores of the best checkpoint by split: dev, and test when there is one."""


class Course:
    """A run: training, the best weights, the scores.

    Args:
        result: the model as it begins, with all that is saved beside it.
        rows: of each split, encoded.
        splits: the same as examples.
        place: the folder, and the checkpoint to go on from.
        accelerator: for device, precision, scaling and trackers.
        talk: the screen.
    """

    def __init__(
        self, result: Artifact, rows: dict[str, EncodedRows], splits: Splits, place: Place, accelerator: Accelerator, talk: Talk
    ) -> None:
        self.result, self.rows, self.splits, self.place = result, rows, splits, place
        self.out, self.task, self.accelerator, self.talk = place.out, result.task, accelerator, talk
        self.model = result.model.to(accelerator.device)
        self.checkpoints = checkpoints_of(place, result.run, result.meta["data"])
        self.work = Fit(self.model, self.task, rows["train"], result.run, accelerator, lambda row: splits.train[row].place)
        if self.work.shards is not None:
            result.model = self.model = self.work.shards.whole
        self._latest: list[Prediction] = []
        """What the last evaluation has predicted of the dev rows."""
        self._best: list[Prediction] = []
        """And the one that was the best."""

    def run(self) -> Trained:
        """Do all of it.

        Raises:
            ConfigError: the folder cannot be written.
            TrainingError: training cannot go on.
            Interrupted: a signal came; a checkpoint is written.
        """
        work, talk = self.work, self.talk
        if work.num_active is not None:
            talk.say(f"vocabulary: {work.num_active} tokens occur in the training rows, so {work.num_active} word vectors are trained")
        if self.place.checkpoint is not None:
            work.state.read(self.place.checkpoint.folder)
        history = self._history()
        try:
            with talk.bar("training", work.total):
                outcome = loop.fit(work, self._evaluate, self._keep, history, self.checkpoints)
        finally:
            history.close()
        history.table()
        with self._going_on():
            self._keep_last()
            scores = self._scores_of_best()
            for line in self.task.report():
                talk.say(f"data: train: {line}")
            _finish(self.result, self.out, outcome, scores, self.accelerator, talk)
        self.checkpoints.clear()
        return Trained(self.out, scores)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Say how to go on, whatever ends the block."""
        then = f"go on with: {self.checkpoints.command}"
        try:
            yield
        except (OSError, ArtifactError) as error:
            what = f"{self.out}: cannot be written: {error.strerror or error}" if isinstance(error, OSError) else str(error)
            raise TrainingError(f"{what}; checkpoints are as they were; make room, then {then}") from None
        except KeyboardInterrupt as stopped:
            raise Interrupted(f"stopped after the last step; {then}", signal.SIGINT) from stopped

    def _history(self) -> log.RunLog:
        try:
            if gather.rank() == 0:
                self.out.mkdir(parents=True, exist_ok=True)
                saved.write_text(self.out / "run.yaml", settings.dump(self.result.run))
            gather.wait()
            progress = self.work.state.progress
            settled = progress.settled == progress.step
            return log.RunLog(self.out, self.result.run, self.accelerator, self.talk, since=progress.step, settled=settled)
        except OSError as error:
            raise ConfigError(f"out: {str(self.out)!r} cannot be written: {error.strerror or error}") from None

    def _evaluate(self, model: Model) -> tuple[float, Scores]:
        self._latest, loss = predict_rows(model, self.task, self.rows["dev"], self.accelerator.device, to_score=True)
        return loss, self.task.score(self._latest, self.splits.dev, intervals=False)

    def _keep(self, *_: object) -> None:
        """Write the model as the best so far."""
        self._best = self._latest
        if not self.out.is_dir():
            raise TrainingError(f"{self.out}: the folder of the run has vanished, so nothing can be kept any more")
        try:
            if gather.rank() == 0:
                saved.write(self.result, self.out)
        except ArtifactError as error:
            raise TrainingError(
                f"{error}; checkpoints are as they were, so make room, then go on with: {self.checkpoints.command}"
            ) from None

    def _keep_last(self) -> None:
        """Write the model of the last step."""
        with self.work.evaluated():
            self.work.scored()
            if not self._latest:  # the run went on from a state after its last evaluation
                self._latest = self._predicted("dev")
            self.task.tune(self._latest, self.splits.dev, lambda _: None)  # so that the folder holds decisions of its own
            if gather.rank() == 0:
                saved.write(self.result, self.out / "last")
        gather.wait()

    def _scores_of_best(self) -> dict[str, Scores]:
        self.model.load_saved(saved.read_weights(self.out))
        if not self._best:  # it was found before the run went on
            self._best = self._predicted("dev")
        scores = {"dev": self.task.score(self.task.tune(self._best, self.splits.dev, self._note), self.splits.dev)}
        if self.splits.test:
            scores["test"] = self.task.score(self._predicted("test"), self.splits.test)
        return scores

    def _predicted(self, split: str) -> list[Prediction]:
        return predict_rows(self.model, self.task, self.rows[split], self.accelerator.device, to_score=True)[0]

    def _note(self, line: str) -> None:
        self.talk.say(f"note: {line}")


def _finish(result: Artifact, out: Path, outcome: loop.Outcome, scores: dict[str, Scores], accelerator: Accelerator, talk: Talk) -> None:
    """Write what is known at the end, and say it."""
    summary = _summary(outcome, result, accelerator)
    if gather.rank() == 0:
        saved.write_meta(result, out)  # with what `tune` has learnt
        write_card(result, out, scores, summary)
        saved.write_scores(out, scores, {"run": summary})  # last: it says that the run is finished
    for split, found in scores.items():
        talk.say(f"{split} (best checkpoint, step {outcome.best_step}): {describe_scores(found)}")
    steps = f"{outcome.steps} steps{', stopped early,' if outcome.stopped_early else ''}"
    talk.say(
        f"run: {steps} in {duration(outcome.train_seconds)} of training, "
        f"{summary['rows_per_s']:.0f} rows/s, {summary['tokens_per_s']:.0f} tokens/s, peak memory {summary['peak_memory_gb']:.2f} GB"
    )
    why = result.task.cannot_be_opened(result.model.head)
    if saved.only_here(result):
        talk.say(f"note: {saved.only_here(result)}: bertune.load opens it")
    elif why:
        talk.say(f"note: {why}, so transformers opens the encoder of this folder without its head; bertune.load opens all of it")


def _summary(outcome: loop.Outcome, result: Artifact, accelerator: Accelerator) -> dict[str, Any]:
    seconds = max(outcome.train_seconds, 1e-9)
    return {
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "stopped_early": outcome.stopped_early,
        "train_seconds": round(outcome.train_seconds, 3),
        "rows_per_s": outcome.rows / seconds,
        "tokens_per_s": outcome.tokens / seconds,
        "peak_memory_gb": peak_memory_gb(accelerator.device.type),
        "device": accelerator.device.type,
        "precision": result.model.encoder.numerics.precision,
        "parameters": sum(p.numel() for p in result.model.parameters()),
    }


def describe_scores(scores: Scores) -> str:
    """Write the figures of a split in one line, the decisive one with its interval first."""
    low_high = scores.intervals.get(scores.main)
    interval = f" (95 % interval {low_high[0]:.4f} to {low_high[1]:.4f})" if low_high else ""
    rest = "  ".join(f"{name} {value:.4f}" for name, value in scores.values.items() if name != scores.main)
    return f"{scores.main} {scores.decisive:.4f}{interval}  {rest}"


def accelerator_of(run: RunConfig, out: Path) -> tuple[Accelerator, Numerics, str]:
    """Set up device and precision, and say why this one.

    Raises:
        ConfigError: the precision is not to be had.
    """
    from accelerate import Accelerator  # late: it takes a second, and prediction needs none
    from accelerate.state import AcceleratorState
    from accelerate.utils import AutocastKwargs

    log.check_trackers(run.log.trackers)
    device = choose_device(run.device)
    precision, why = choose_precision(run.train.precision, device)
    AcceleratorState._reset_state(reset_partial_state=True)  # or a second run in this process keeps the first one's precision
    accelerator = Accelerator(
        mixed_precision="fp16" if precision == "fp16" else "no",
        kwargs_handlers=[AutocastKwargs(enabled=False)],  # encoders cast by themselves; of fp16 only the loss scaling is wanted
        cpu=device.type == "cpu",
        log_with=run.log.trackers or None,
        project_dir=str(out) if run.log.trackers else None,
    )
    return accelerator, Numerics(precision, run.train.fast_dropout), why


def as_launched(run: RunConfig, note: Callable[[str], None]) -> RunConfig:
    """Take over what accelerate's launcher was told of a model in pieces.

    Args:
        run: the settings.
        note: hears what was taken over.

    Raises:
        ConfigError: what it was told is not there, and would be passed over in silence.
    """
    for name, what in {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}.items():
        if os.environ.get(name, "false").lower() in {"true", "1", "yes"}:
            raise ConfigError(
                f"the launcher's configuration asks for {what} ({name}={os.environ[name]}), which bertune does not use; launch with "
                "distributed_type MULTI_GPU (and use_cpu: true on processors) or with torchrun; train.shard=true keeps the model in pieces"
            )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in {"true", "1", "yes"}:
        os.environ["ACCELERATE_USE_FSDP"] = "false"  # bertune cuts the model itself
        note("the launcher's configuration asks for FSDP, so train.shard=true; its other settings of FSDP are not used")
        return run.model_copy(update={"train": run.train.model_copy(update={"shard": True})})
    return run
