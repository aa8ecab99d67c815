"""The only training loop: steps, and what follows them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

from bertune.data.batching import num_batches
from bertune.errors import Interrupted
from bertune.heads.model import Model
from bertune.training.checkpoint import Checkpoints
from bertune.training.signals import Asked
from bertune.training.step import TrainStep
from bertune.training.throughput import Clock
from bertune.types import JSON, Scores


class Listener(Protocol):
    """Hears what happens while the weights are made better."""

    def record(self, what: str, values: JSON) -> None:
        """Hear of one event: "train", a line of progress; "dev", an evaluation; "epoch"; or "trouble", with a `message`."""
        ...

    def tick(self, step: int, total: int) -> None:
        """Hear that a step is done."""
        ...


Evaluate = Callable[[Model], tuple[float, Scores]]
Keep = Callable[[Model, JSON], None]


@dataclass(frozen=True)
class Outcome:
    """What a run of `fit` came to."""

    steps: int
    best_step: int
    best: float | None
    train_seconds: float
    rows: int
    tokens: int
    stopped_early: bool


def fit(work: TrainStep, evaluate: Evaluate | None, keep: Keep, listener: Listener, checkpoints: Checkpoints | None = None) -> Outcome:
    """Train until all steps are done or scores stay behind.

    Args:
        work: model, rows and state; training goes on from its state.
        evaluate: scores the dev rows; None when there are none.
        keep: called with the model and its scores whenever it is the best so far.
        listener: hears of progress.
        checkpoints: where the state is written; without it a signal ends the run as it ends any program.

    Raises:
        Interrupted: a signal came; a checkpoint is written.
        TrainingError: training cannot go on.
    """
    run = TrainLoop(work, evaluate, keep, listener, checkpoints, Clock(work))
    work.tell = lambda message: listener.record("trouble", {"step": work.state.progress.step + 1, "message": message})
    with work.interrupts.listening() if checkpoints is not None else nullcontext():
        try:
            run.all_steps()
        except Asked:  # in an evaluation: the state is that before it
            run.leave()
    progress, clock = work.state.progress, run.clock
    stopped = run.out_of_patience and progress.step < work.total
    return Outcome(progress.step, progress.best_step, progress.best, clock.seconds, clock.rows, clock.tokens, stopped)


@dataclass
class TrainLoop:
    """The course of a run: steps, and what follows them."""

    work: TrainStep
    evaluate: Evaluate | None
    keep: Keep
    listener: Listener
    checkpoints: Checkpoints | None
    clock: Clock

    @property
    def per_epoch(self) -> int:
        return num_batches(len(self.work.rows), self.work.config.batch_size)

    @property
    def out_of_patience(self) -> bool:
        patience = self.work.config.patience
        return patience is not None and self.work.state.progress.stale >= patience

    def all_steps(self) -> None:
        work, progress = self.work, self.work.state.progress
        if progress.settled < progress.step:  # it was left in the middle of an evaluation
            self.settle()
        for rows in work.batches():
            if progress.step >= work.total or self.out_of_patience:
                return
            work.model.train()
            work.step(rows)
            self.clock.count(rows)
            self.listener.tick(progress.step, work.total)
            self.settle()
            if work.must_stop:
                self.leave()

    def settle(self) -> None:
        """Do what is due after a step; each part once, wherever a run is left and goes on."""
        work, config, progress = self.work, self.work.config, self.work.state.progress
        at_end = progress.step == work.total
        ends_epoch = progress.position == self.per_epoch
        if (progress.step % work.run.log.every == 0 or at_end) and progress.told < progress.step:
            work.gather_loss()
            self.listener.record("train", self.clock.line())
            progress.told = progress.step
        if at_end or (ends_epoch if config.eval_every == "epoch" else progress.step % config.eval_every == 0):
            work.gather_loss()
            with self.clock.paused(), work.evaluated():
                self._evaluate()
        if ends_epoch or at_end:
            work.gather_loss()
            epoch = {"epoch": progress.step / self.per_epoch, "step": progress.step, "loss": progress.since_epoch.value}
            self.listener.record("epoch", epoch)
            progress.since_epoch = type(progress.since_epoch)()
        progress.settled = progress.step
        every = config.checkpoint_every
        due = every != "never" and (at_end or self.out_of_patience or (ends_epoch if every == "epoch" else progress.step % every == 0))
        if due:
            self._write_checkpoint()

    def leave(self) -> None:
        """Write a checkpoint and end the run.

        Raises:
            Interrupted: in any case.
        """
        number = self.work.interrupts.number or 15  # another process was asked, by whatever ends jobs
        if self.checkpoints is None:
            raise KeyboardInterrupt
        self._write_checkpoint()
        step, total = self.work.state.progress.step, self.work.total
        raise Interrupted(f"stopped at step {step} of {total}; go on with: {self.checkpoints.command}", number)

    def _write_checkpoint(self) -> None:
        if self.checkpoints is not None:
            self.work.check_last()
            with self.clock.paused():
                self.checkpoints.write(self.work.state)

    def _evaluate(self) -> None:
        """Score, and keep the model if it is the best."""
        progress = self.work.state.progress
        if self.evaluate is None:
            progress.best_step = progress.step
            self.keep(self.work.model, {"step": progress.step})
            return
        with self.work.interrupts.breakable():
            loss, scores = self.evaluate(self.work.scored())
        score = scores.decisive
        sign = 1 if scores.higher_is_better else -1
        first = progress.best is None
        better = first or sign * score > sign * (progress.best or 0.0)
        tied = not first and score == progress.best and loss < progress.best_loss
        record = {
            "step": progress.step, "epoch": round(progress.step / self.per_epoch, 4), "train_loss": progress.since_epoch.value,
            "dev_loss": loss, "best": better or tied, **scores.values,
        }  # fmt: skip
        gained = progress.reference is None or sign * (score - progress.reference) > self.work.config.min_gain
        progress.stale = 0 if gained else progress.stale + 1
        progress.reference = score if gained else progress.reference
        if better or tied:
            progress.best, progress.best_loss, progress.best_step = score, loss, progress.step
            self.keep(self.work.model, record)
        self.listener.record("dev", record)
