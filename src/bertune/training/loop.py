"""The only training loop: steps, and what follows each of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import NoReturn

from bertune.data.batching import num_batches
from bertune.errors import Interrupted
from bertune.heads.model import Model
from bertune.training.checkpoint import Checkpoints
from bertune.training.listener import Listener, Listeners, Outcome, StopTraining
from bertune.training.signals import StopRequested
from bertune.training.step import TrainStep
from bertune.training.throughput import Throughput
from bertune.types import JSON, Scores

Evaluate = Callable[[Model], tuple[float, Scores]]
"""Scores the dev rows: mean loss and scores."""
SaveBest = Callable[[Model, JSON], None]
"""Called with the model and the record of its evaluation whenever it is the best so far."""


class TrainLoop:
    """Training from the present state until all steps are done or the scores no longer improve.

    Args:
        train_step: model, rows and state.
        evaluate: scores the dev rows; None if there are none.
        save_best: keeps the model.
        listeners: hear of progress.
        checkpoints: where the state is written; without it a signal ends the program as usual.
    """

    def __init__(
        self,
        train_step: TrainStep,
        *,
        evaluate: Evaluate | None,
        save_best: SaveBest,
        listeners: Sequence[Listener] = (),
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.train_step, self.evaluate, self.save_best, self.checkpoints = (
            train_step,
            evaluate,
            save_best,
            checkpoints,
        )
        self.listeners = Listeners(listeners)
        self.throughput = Throughput(train_step)
        self.steps_per_epoch = num_batches(len(train_step.dataset), train_step.config.batch_size)

    def run(self) -> Outcome:
        """Train.

        Raises:
            Interrupted: a signal came; a checkpoint is written.
            TrainingError: training cannot go on.
        """
        try:
            stopped_early = self._run_steps()
            outcome = self._outcome(stopped_early)
            self.listeners.on_end(outcome)
        finally:
            self.listeners.close()
        return outcome

    def _run_steps(self) -> bool:
        """Do all steps; tell whether scores or a listener ended training early."""
        train_step = self.train_step
        with train_step.signals.installed() if self.checkpoints is not None else nullcontext():
            try:
                return self._all_steps_or_stop()
            except StopRequested:  # in an evaluation: the state is that before it
                self._leave()

    def _all_steps_or_stop(self) -> bool:
        try:
            self._all_steps()
        except StopTraining:
            if not self.train_step.state.progress.best_step:  # no model is saved yet
                with suppress(StopTraining):
                    self._evaluate()
            return True
        return self._out_of_patience and self.train_step.state.progress.step < self.train_step.total_steps

    def _outcome(self, stopped_early: bool) -> Outcome:
        progress, done = self.train_step.state.progress, self.throughput
        return Outcome(
            progress.step,
            progress.best_step,
            progress.best_score,
            done.seconds,
            done.rows,
            done.tokens,
            stopped_early,
        )

    @property
    def _out_of_patience(self) -> bool:
        patience = self.train_step.config.patience
        return patience is not None and self.train_step.state.progress.evals_without_gain >= patience

    def _all_steps(self) -> None:
        train_step, progress = self.train_step, self.train_step.state.progress
        with self.throughput.paused():
            evaluated = progress.last_completed_step == progress.step
            self.listeners.on_start(progress.step, train_step.total_steps, evaluated=evaluated)
        if progress.last_completed_step < progress.step:  # the run stopped in the middle of an evaluation
            self._after_step()
        for rows in train_step.batches():
            if progress.step >= train_step.total_steps or self._out_of_patience:
                return
            train_step.model.train()
            train_step.step(rows)
            self.throughput.count(rows)
            self.listeners.on_step(progress.step, train_step.total_steps)
            self._after_step()
            if train_step.must_stop:
                self._leave()

    def _after_step(self) -> None:
        """Do what is due after a step; each part once, wherever a run stops and goes on."""
        train_step, config, progress = self.train_step, self.train_step.config, self.train_step.state.progress
        at_end = progress.step == train_step.total_steps
        ends_epoch = progress.batches_done == self.steps_per_epoch
        if (
            progress.step % train_step.run.log.every == 0 or at_end
        ) and progress.last_logged_step < progress.step:
            train_step.fetch_loss()
            self.listeners.on_log(self.throughput.record())
            progress.last_logged_step = progress.step
        if at_end or self._evaluation_is_due(ends_epoch=ends_epoch):
            self._evaluate()
        if ends_epoch or at_end:
            train_step.fetch_loss()
            loss = progress.loss_since_epoch.value
            self.listeners.on_epoch(
                {"epoch": progress.step / self.steps_per_epoch, "step": progress.step, "loss": loss}
            )
            progress.loss_since_epoch = type(progress.loss_since_epoch)()
        progress.last_completed_step = progress.step
        every = config.checkpoint_every
        if every == "never":
            return
        if (
            at_end
            or self._out_of_patience
            or (ends_epoch if every == "epoch" else progress.step % every == 0)
        ):
            self._write_checkpoint()

    def _evaluation_is_due(self, *, ends_epoch: bool) -> bool:
        every = self.train_step.config.eval_every
        if every == "end":
            return False
        return ends_epoch if every == "epoch" else self.train_step.state.progress.step % every == 0

    def _leave(self) -> NoReturn:
        """Write a checkpoint and end the run.

        Raises:
            Interrupted: always.
        """
        # Without a signal here another process got one, from whatever ends jobs.
        number = self.train_step.signals.received or signal.SIGTERM
        if self.checkpoints is None:
            raise KeyboardInterrupt
        self._write_checkpoint()
        step, total = self.train_step.state.progress.step, self.train_step.total_steps
        raise Interrupted(
            f"stopped at step {step} of {total}; go on with: {self.checkpoints.resume_command}", number
        )

    def _write_checkpoint(self) -> None:
        if self.checkpoints is not None:
            self.train_step.check_last_step()
            with self.throughput.paused():
                self.checkpoints.write(self.train_step.state)

    def _evaluate(self) -> None:
        """Score the dev rows, and keep the model if it is the best so far.

        Without dev rows the last model is kept.
        """
        self.train_step.fetch_loss()
        with self.throughput.paused(), self.train_step.averaged_weights():
            self._evaluate_and_save()

    def _evaluate_and_save(self) -> None:
        progress = self.train_step.state.progress
        if self.evaluate is None:
            progress.best_step = progress.step
            self.save_best(self.train_step.model, {"step": progress.step})
            return
        with self.train_step.signals.interruptible():
            loss, scores = self.evaluate(self.train_step.whole_model())
        is_best = self._is_best(scores, loss)
        self._count_gain(scores)
        record = {
            "step": progress.step,
            "epoch": round(progress.step / self.steps_per_epoch, 4),
            "train_loss": progress.loss_since_epoch.value,
            "dev_loss": loss,
            "best": is_best,
            **scores.values,
        }
        if is_best:
            progress.best_score, progress.best_loss, progress.best_step = (
                scores.main_value,
                loss,
                progress.step,
            )
            self.save_best(self.train_step.model, record)
        self.listeners.on_evaluate(record)

    def _is_best(self, scores: Scores, loss: float) -> bool:
        """Tell whether scores are the best so far; of equal scores the one with the lower loss wins."""
        progress = self.train_step.state.progress
        if progress.best_score is None:
            return True
        score, best = scores.main_value, progress.best_score
        better = score > best if scores.higher_is_better else score < best
        return better or (score == best and loss < progress.best_loss)

    def _count_gain(self, scores: Scores) -> None:
        """Count the evaluations in a row that gained less than `train.min_delta`."""
        progress = self.train_step.state.progress
        sign = 1 if scores.higher_is_better else -1
        reference = progress.reference_score
        gained = (
            reference is None or sign * (scores.main_value - reference) > self.train_step.config.min_delta
        )
        progress.evals_without_gain = 0 if gained else progress.evals_without_gain + 1
        progress.reference_score = scores.main_value if gained else reference
