"""A run: training, the best weights, the scores."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertune.artifact.artifact import Artifact, bertune_only_reason
from bertune.artifact.model_card import write_model_card
from bertune.artifact.read import read_weights
from bertune.artifact.write import write_artifact, write_metadata, write_scores
from bertune.config.load import dump_config
from bertune.console import Console, duration
from bertune.data.dataset import EncodedDataset
from bertune.distributed import barrier, rank
from bertune.errors import ArtifactError, ConfigError, Interrupted, TrainingError
from bertune.files import write_text
from bertune.heads.model import Model
from bertune.inference.predict import predict_dataset
from bertune.memory import peak_memory_gb
from bertune.tasks.base.baselines import baseline_of, compare_with_baseline, with_baseline
from bertune.tasks.base.reading import Splits
from bertune.training.history import History
from bertune.training.learnt import LearntCheck, peak_rates
from bertune.training.listener import Listener, Listeners, Outcome
from bertune.training.loop import TrainLoop
from bertune.training.optim import describe_warmup
from bertune.training.progress import ConsoleProgress
from bertune.training.resume import RunDir, checkpoints_of
from bertune.training.step import TrainStep
from bertune.training.trackers import Trackers
from bertune.types import Baseline, Prediction, Scores

if TYPE_CHECKING:
    from accelerate import Accelerator

MOST_UNTRAINED_ROWS = 2000
"""Dev rows up to which the model before training is always scored, where it is the baseline."""


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind."""

    folder: Path
    """The saved model."""
    scores: dict[str, Scores]
    """Scores of the best checkpoint by split: dev and test, as far as there are such rows."""
    predictions: Mapping[str, Sequence[Prediction]] = field(default_factory=dict, repr=False)
    """Its predictions of the dev rows; none of a run that was finished before."""


class TrainingRun:
    """A run from encoded rows to a finished folder.

    Args:
        artifact: the model as it begins, with all that is saved beside it.
        datasets: the encoded rows of each split.
        splits: the same rows as examples.
        run_dir: the folder, and the checkpoint to go on from.
        accelerator: for device, precision, loss scaling and trackers.
        console: shows progress.
        listeners: hear of progress after history, trackers and console.
        known_scores: see `train_on`.
    """

    def __init__(
        self,
        artifact: Artifact,
        datasets: dict[str, EncodedDataset],
        splits: Splits,
        run_dir: RunDir,
        accelerator: Accelerator,
        console: Console,
        listeners: Sequence[Listener] = (),
        *,
        known_scores: Mapping[str, Scores] | None = None,
    ) -> None:
        self._known_scores = known_scores
        self.artifact, self.datasets, self.splits, self.run_dir = artifact, datasets, splits, run_dir
        self.out, self.task, self.accelerator, self.console = (
            run_dir.path,
            artifact.task,
            accelerator,
            console,
        )
        self.checkpoints = checkpoints_of(run_dir, artifact.run_config, artifact.metadata["data"])
        history = History(self.out)
        trackers = [Trackers(accelerator, artifact.run_config)] if artifact.run_config.log.trackers else []
        self._learnt = LearntCheck(
            self.task,
            artifact.run_config.train,
            splits.dev,
            history,
            lambda step, message: self.listeners.on_warning(step, message),
        )
        progress = ConsoleProgress(console, history)
        self.listeners = Listeners([history, *trackers, progress, *listeners, self._learnt])
        self.train_step = TrainStep(
            artifact.model.to(accelerator.device),
            self.task,
            datasets["train"],
            artifact.run_config,
            accelerator,
            location_of=lambda row: str(splits.train[row].location),
            warn=self._warn,
        )
        if self.train_step.sharded is not None:
            artifact.model = self.train_step.sharded.full_model
        self.model = artifact.model
        self._latest: list[Prediction] = []
        """Predictions of the dev rows in the last evaluation."""
        self._best: list[Prediction] = []
        """Those of the best evaluation; at the end with the decisions that dev rows chose."""

    def _warn(self, message: str) -> None:
        self.listeners.on_warning(self.train_step.state.progress.step + 1, message)

    def run(self) -> TrainResult:
        """Train, score the best weights, and finish the folder.

        Raises:
            ConfigError: the folder cannot be written.
            TrainingError: training cannot go on.
            Interrupted: a signal came; a checkpoint is written.
        """
        words = self.train_step.num_active_words
        if words is not None:
            self.console.info(
                f"vocabulary: {words} tokens occur in the training rows, so {words} word vectors are trained"
            )
        warmup = describe_warmup(self.train_step.config, self.train_step.total_steps)
        if warmup:
            self.console.info(f"note: {warmup}")
        self._learnt.rates = peak_rates(self.model, self.train_step.state.optimizer)
        self._learnt.total_steps = self.train_step.total_steps
        self._learnt.baseline = self._find_baseline()
        if self.run_dir.checkpoint is not None:
            self.train_step.state.read(self.run_dir.checkpoint.folder)
        self._write_run_file()
        loop = TrainLoop(
            self.train_step,
            evaluate=self._evaluate if self.splits.dev else None,
            save_best=self._save_best,
            listeners=self.listeners.listeners,
            checkpoints=self.checkpoints,
        )
        outcome = loop.run()
        with self._resumable():
            if self._dev_rows_choose:
                self._save_last()
            scores = self._score_best()
            for line in self.task.report():
                self.console.info(f"data: train: {line}")
            self._finish(outcome, scores)
        self.checkpoints.clear()
        return TrainResult(self.out, scores, {"dev": self._best} if self.splits.dev else {})

    @property
    def _dev_rows_choose(self) -> bool:
        """Whether dev rows choose the best model, which may be another one than the last."""
        return bool(self.splits.dev) and self.artifact.run_config.train.eval_every != "end"

    def _write_run_file(self) -> None:
        try:
            if rank() == 0:
                self.out.mkdir(parents=True, exist_ok=True)
                write_text(self.out / "run.yaml", dump_config(self.artifact.run_config))
            barrier()
        except OSError as error:
            raise ConfigError(
                f"out: {str(self.out)!r} cannot be written: {error.strerror or error}"
            ) from None

    @contextmanager
    def _resumable(self) -> Iterator[None]:
        """Say how to go on, whatever ends the block."""
        hint = f"go on with: {self.checkpoints.resume_command}"
        try:
            yield
        except (OSError, ArtifactError) as error:
            what = (
                f"{self.out}: cannot be written: {error.strerror or error}"
                if isinstance(error, OSError)
                else str(error)
            )
            raise TrainingError(f"{what}; checkpoints are unchanged; make room, then {hint}") from None
        except KeyboardInterrupt as stopped:
            raise Interrupted(f"stopped after the last step; {hint}", signal.SIGINT) from stopped

    def _evaluate(self, model: Model) -> tuple[float, Scores]:
        result = predict_dataset(
            model, self.task, self.datasets["dev"], self.accelerator.device, to_score=True
        )
        self._latest = result.predictions
        scores = self.task.score(self._latest, self.splits.dev, intervals=False)
        self._learnt.scores = replace(scores, baseline=self._learnt.baseline)
        self._learnt.predictions = self._latest
        return result.loss, scores

    def _find_baseline(self) -> Baseline | None:
        """Return what a model that has learnt nothing scores on the dev rows.

        Where that may be the untrained model, it predicts the dev rows if they are few, or few beside the
        rows that training passes.
        """
        baseline = baseline_of(self.task, self.splits.dev)
        train, passed = self.artifact.run_config.train, len(self.splits.dev)
        most = max(MOST_UNTRAINED_ROWS, self.train_step.total_steps * train.batch_size // 10)
        is_whole = self.train_step.sharded is None
        if not (0 < passed <= most and is_whole and self.task.has_untrained_baseline()):
            return baseline
        scores = self.task.score(self._predict("dev"), self.splits.dev, intervals=False)
        self.console.info(f"dev before training: {describe_scores(scores)}")
        untrained = Baseline("the model before training", scores.values, is_untrained=True)
        is_better = not compare_with_baseline(replace(scores, baseline=baseline))
        return untrained if is_better else baseline

    def _save_best(self, *_: object) -> None:
        """Save the model as the best so far."""
        self._best = self._latest
        if not self.out.is_dir():
            raise TrainingError(
                f"{self.out}: the folder of the run has vanished, so nothing can be saved any more"
            )
        try:
            if rank() == 0:
                write_artifact(self.artifact, self.out)
        except ArtifactError as error:
            command = self.checkpoints.resume_command
            raise TrainingError(
                f"{error}; checkpoints are unchanged, so make room, then go on with: {command}"
            ) from None

    def _save_last(self) -> None:
        """Save the model of the last step in `last/`."""
        with self.train_step.averaged_weights():
            self.train_step.whole_model()
            if not self._latest:  # the run went on from a state after its last evaluation
                self._latest = self._predict("dev")
            self._calibrate(self._latest, lambda _: None)  # so that the folder has decisions of its own
            if rank() == 0:
                write_artifact(self.artifact, self.out / "last")
            if self._known_scores is None:
                self.task.reset_calibration()  # the best model gets its own, from its own probabilities
        barrier()

    def _score_best(self) -> dict[str, Scores]:
        try:
            self.model.load_hf_state_dict(read_weights(self.out, verify=True))
        except ArtifactError as error:
            raise TrainingError(f"{error}. The best model is lost; start a new run (out=...)") from None
        scores = dict(self._known_scores or {})
        if self.splits.dev:
            if not self._best:  # it was found before the run went on
                self._best = self._predict("dev")
            self._best = self._calibrate(self._best, self._note)
            scores["dev"] = replace(
                self.task.score(self._best, self.splits.dev), baseline=self._learnt.baseline
            )
        if self.splits.test:
            figures = self.task.score(self._predict("test"), self.splits.test)
            scores["test"] = with_baseline(figures, self.task, self.splits.test)
        return scores

    def _calibrate(self, predictions: list[Prediction], note: Callable[[str], None]) -> list[Prediction]:
        """Choose decisions on the dev rows, unless they were chosen before the run."""
        if self._known_scores is not None:
            return predictions
        return self.task.calibrate(predictions, self.splits.dev, note)

    def _predict(self, split: str) -> list[Prediction]:
        return predict_dataset(
            self.model, self.task, self.datasets[split], self.accelerator.device, to_score=True
        ).predictions

    def _note(self, line: str) -> None:
        self.console.info(f"note: {line}")

    def _finish(self, outcome: Outcome, scores: dict[str, Scores]) -> None:
        """Write what is known at the end, and show it."""
        artifact, console = self.artifact, self.console
        summary = self._summary(outcome)
        if rank() == 0:
            write_metadata(artifact, self.out)  # with what `calibrate` has learnt
            write_model_card(artifact, self.out, scores, summary)
            write_scores(self.out, scores, {"run": summary})  # last: it says that the run is finished
        which = "best checkpoint" if self._dev_rows_choose else "last model"
        which = which if self.splits.dev else f"no dev rows, {which}"
        for split, figures in scores.items():
            if split not in (self._known_scores or {}):
                console.info(f"{split} ({which}, step {outcome.best_step}): {describe_scores(figures)}")
        if (
            outcome.steps
            and "dev" in scores
            and (unlearnt := self._learnt.describe(scores["dev"], self._best))
        ):
            self._note(unlearnt)
        if not scores:
            self._note(
                "the run had no dev rows, so nothing says how good the model is; score it on other rows"
            )
        steps = f"{outcome.steps} steps{', stopped early,' if outcome.stopped_early else ''}"
        console.info(
            f"run: {steps} in {duration(outcome.train_seconds)} of training, {summary['rows_per_s']:.0f} "
            "rows/s, "
            f"{summary['tokens_per_s']:.0f} tokens/s, peak memory {summary['peak_memory_gb']:.2f} GB"
        )
        reason = artifact.task.hf_incompatibility(artifact.model.head)
        if bertune_only_reason(artifact):
            self._note(f"{bertune_only_reason(artifact)}: bertune.load opens it")
        elif reason:
            self._note(
                f"{reason}, so transformers opens the encoder of this folder without its head; bertune.load "
                "opens all of it"
            )

    def _summary(self, outcome: Outcome) -> dict[str, Any]:
        seconds = max(outcome.train_seconds, 1e-9)
        return {
            "steps": outcome.steps,
            "best_step": outcome.best_step,
            "stopped_early": outcome.stopped_early,
            "train_seconds": round(outcome.train_seconds, 3),
            "rows_per_s": outcome.rows / seconds,
            "tokens_per_s": outcome.tokens / seconds,
            "peak_memory_gb": peak_memory_gb(self.accelerator.device.type),
            "device": self.accelerator.device.type,
            "precision": self.model.encoder.numerics.precision,
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }


def describe_scores(scores: Scores) -> str:
    """Write the figures of a split in one line, the main one first, with its interval and its baseline."""
    bounds = scores.intervals.get(scores.main_metric)
    remarks = [f"95 % interval {bounds[0]:.4f} to {bounds[1]:.4f}"] if bounds else []
    if scores.baseline is not None and scores.main_metric in scores.baseline.values:
        remarks.append(f"{scores.baseline.name}: {scores.baseline.values[scores.main_metric]:.4f}")
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    rest = "  ".join(
        f"{name} {value:.4f}" for name, value in scores.values.items() if name != scores.main_metric
    )
    return f"{scores.main_metric} {scores.main_value:.4f}{remark}  {rest}"
