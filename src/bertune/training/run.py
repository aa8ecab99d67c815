"""From encoded rows to a finished folder: the course of one run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertune import distributed
from bertune.artifact.artifact import Artifact, only_here
from bertune.artifact.model_card import write_card
from bertune.artifact.read import read_weights
from bertune.artifact.write import write_artifact, write_meta, write_scores, write_text
from bertune.config.load import dump_config
from bertune.console import Console, duration
from bertune.data.dataset import EncodedDataset
from bertune.errors import ArtifactError, ConfigError, Interrupted, TrainingError
from bertune.heads.model import Model
from bertune.inference.predict import predict_rows
from bertune.memory import peak_memory_gb
from bertune.tasks.base.reading import Splits
from bertune.training import history, loop
from bertune.training.resume import RunDir, checkpoints_of
from bertune.training.step import TrainStep
from bertune.types import Prediction, Scores

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Trained:
    """What a training run left behind."""

    folder: Path
    scores: dict[str, Scores]
    """Scores of the best checkpoint by split: dev, and test when there is one."""


class TrainingRun:
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
        self, result: Artifact, rows: dict[str, EncodedDataset], splits: Splits, place: RunDir, accelerator: Accelerator, talk: Console
    ) -> None:
        self.result, self.rows, self.splits, self.place = result, rows, splits, place
        self.out, self.task, self.accelerator, self.talk = place.out, result.task, accelerator, talk
        self.model = result.model.to(accelerator.device)
        self.checkpoints = checkpoints_of(place, result.run, result.meta["data"])
        self.work = TrainStep(self.model, self.task, rows["train"], result.run, accelerator, lambda row: splits.train[row].place)
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

    def _history(self) -> history.History:
        try:
            if distributed.rank() == 0:
                self.out.mkdir(parents=True, exist_ok=True)
                write_text(self.out / "run.yaml", dump_config(self.result.run))
            distributed.barrier()
            progress = self.work.state.progress
            settled = progress.settled == progress.step
            return history.History(self.out, self.result.run, self.accelerator, self.talk, since=progress.step, settled=settled)
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
            if distributed.rank() == 0:
                write_artifact(self.result, self.out)
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
            if distributed.rank() == 0:
                write_artifact(self.result, self.out / "last")
        distributed.barrier()

    def _scores_of_best(self) -> dict[str, Scores]:
        self.model.load_saved(read_weights(self.out))
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


def _finish(result: Artifact, out: Path, outcome: loop.Outcome, scores: dict[str, Scores], accelerator: Accelerator, talk: Console) -> None:
    """Write what is known at the end, and say it."""
    summary = _summary(outcome, result, accelerator)
    if distributed.rank() == 0:
        write_meta(result, out)  # with what `tune` has learnt
        write_card(result, out, scores, summary)
        write_scores(out, scores, {"run": summary})  # last: it says that the run is finished
    for split, found in scores.items():
        talk.say(f"{split} (best checkpoint, step {outcome.best_step}): {describe_scores(found)}")
    steps = f"{outcome.steps} steps{', stopped early,' if outcome.stopped_early else ''}"
    talk.say(
        f"run: {steps} in {duration(outcome.train_seconds)} of training, "
        f"{summary['rows_per_s']:.0f} rows/s, {summary['tokens_per_s']:.0f} tokens/s, peak memory {summary['peak_memory_gb']:.2f} GB"
    )
    why = result.task.cannot_be_opened(result.model.head)
    if only_here(result):
        talk.say(f"note: {only_here(result)}: bertune.load opens it")
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
