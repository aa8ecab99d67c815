"""Trains on some rows and scores on others without a folder: what trials and folds do.

The model is that of the last step. Rows that are held out choose no step, so their scores flatter nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertune.artifact.artifact import Artifact
from bertune.artifact.write import write_artifact
from bertune.config.auto_rates import take_settled
from bertune.config.schema import RunConfig
from bertune.console import Console
from bertune.data.dataset import EncodedDataset
from bertune.heads.model import Model
from bertune.inference.predict import predict_dataset
from bertune.tasks.base.datasets import encode_datasets
from bertune.tasks.base.reading import Splits
from bertune.tasks.base.task import Task
from bertune.training.listener import Listener, Listeners, Outcome
from bertune.training.loop import TrainLoop
from bertune.training.setup import EncodeRows, TrainSetup, set_up_training
from bertune.training.step import TrainStep
from bertune.types import JSON, Prediction, Scores

OnScores = Callable[[Scores, int, int], None]
"""Called with scores, the step, and the number of steps of the run."""


@dataclass
class Fit:
    """A model after its last step, in memory."""

    artifact: Artifact
    outcome: Outcome
    scores: Scores | None
    """Scores of the rows held out, without intervals; None where there are none, or a listener ended training
    before an evaluation."""
    loss: float | None
    """Mean loss of the rows held out."""
    _datasets: dict[str, EncodedDataset]
    _train_step: TrainStep

    def predict(self, split: str = "dev", *, to_score: bool = False) -> list[Prediction]:
        """Predict the rows of a split, in their order.

        Args:
            split: train, dev (the rows held out) or test.
            to_score: keep only as much of each prediction as `task.score` needs.
        """
        step, artifact = self._train_step, self.artifact
        with step.averaged_weights():
            return predict_dataset(
                step.whole_model(), artifact.task, self._datasets[split], step.device, to_score=to_score
            ).predictions

    def save(self, folder: Path) -> None:
        """Write the model, as `bertune train` writes a folder.

        Raises:
            ArtifactError: it cannot be written.
        """
        with self._train_step.averaged_weights():
            self._train_step.whole_model()
            write_artifact(self.artifact, folder)


class _LastEvaluation(Listener):
    """Scores the rows held out, keeps the last result, and hands it on when the evaluation is over."""

    def __init__(self, setup: TrainSetup, splits: Splits, on_scores: OnScores, total_steps: int) -> None:
        self._setup, self._splits, self._on_scores, self._total = setup, splits, on_scores, total_steps
        self.scores: Scores | None = None
        self.loss: float | None = None

    def __call__(self, model: Model) -> tuple[float, Scores]:
        task = self._setup.artifact.task
        result = predict_dataset(
            model, task, self._setup.datasets["dev"], self._setup.accelerator.device, to_score=True
        )
        self.scores = task.score(result.predictions, self._splits.dev, intervals=False)
        self.loss = result.loss
        return self.loss, self.scores

    def on_evaluate(self, record: JSON) -> None:
        """Hand the scores on."""
        if self.scores is not None:
            self._on_scores(self.scores, record["step"], self._total)


def _warn(message: str, step: int, listeners: Sequence[Listener], console: Console | None) -> None:
    """Say what training survives, such as short memory."""
    if console is not None:
        console.warning(message)
    Listeners(listeners).on_warning(step, message)


def fit(
    run: RunConfig,
    task: Task,
    splits: Splits,
    *,
    listeners: Sequence[Listener] = (),
    on_scores: OnScores = lambda *_: None,
    console: Console | None = None,
    encode_rows: EncodeRows = encode_datasets,
) -> Fit:
    """Train to the last step, and score the rows held out as often as `train.eval_every` says.

    The model before its first step, and each step, are those of `train_on` with the same rows. Nothing is
    written, so there is nothing to resume; `train.patience`, trackers and checkpoints have no effect.

    Args:
        run: the settings.
        task: has learned from the training rows; see `Task.refit`. The model keeps it.
        splits: the training rows, and as `dev` the rows held out, which may be none.
        listeners: hear of progress, and may end training with `StopTraining`.
        on_scores: called after each evaluation with its scores, the step and the number of steps; may end
            training too.
        console: shows what is built; without it nothing is shown.
        encode_rows: turns rows into tokens.

    Raises:
        BertuneError: the settings do not fit, or training cannot go on.
    """
    gc.collect()  # the model of the call before is a circle of references
    train = run.train.model_copy(update={"patience": None, "checkpoint_every": "never"})
    log = run.log.model_copy(update={"trackers": []})
    setup = set_up_training(
        run.model_copy(update={"train": train, "log": log}),
        task,
        splits,
        Path(run.out or "."),
        console or Console(quiet=True),
        encode_rows,
    )
    settled = take_settled(run.train, setup.artifact.run_config.train)
    setup.artifact.run_config = run.model_copy(update={"train": settled})
    step = TrainStep(
        setup.artifact.model.to(setup.accelerator.device),
        task,
        setup.datasets["train"],
        run.model_copy(update={"train": take_settled(train, settled)}),
        setup.accelerator,
        location_of=lambda row: str(splits.train[row].location),
        warn=lambda message: _warn(message, step.state.progress.step + 1, listeners, console),
    )
    last = _LastEvaluation(setup, splits, on_scores, step.total_steps)
    loop = TrainLoop(
        step,
        evaluate=last if splits.dev else None,
        save_best=lambda *_: None,
        listeners=[*listeners, last],
    )
    outcome = loop.run()
    return Fit(setup.artifact, outcome, last.scores, last.loss, setup.datasets, step)
