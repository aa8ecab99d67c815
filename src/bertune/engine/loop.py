"""The only training loop."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bertune.config import RunConfig, TrainConfig
from bertune.data.batching import EncodedRows, epoch_order, micro_batches, num_batches
from bertune.engine.optim import build_optimizer, schedule, set_rates
from bertune.engine.state import Randomness, TrainState
from bertune.engine.tricks import EMA, fgm
from bertune.errors import TrainingError
from bertune.model import Model
from bertune.model.dropout import BYTES
from bertune.tasks.task import Task
from bertune.types import JSON, Batch, Scores

if TYPE_CHECKING:
    from accelerate import Accelerator


class Listener(Protocol):
    """Hears what happens while the weights are made better."""

    def record(self, what: str, values: JSON) -> None:
        """Hear of one event: "train", a line of progress, or "dev", an evaluation."""
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


def seed_everything(seed: int) -> None:
    """Seed every generator, before the head's first weights are drawn."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    BYTES.seed(seed)


def total_steps(num_rows: int, config: TrainConfig) -> int:
    """Return the number of optimizer steps of a run."""
    if config.max_steps is not None:
        return config.max_steps
    return math.ceil(num_batches(num_rows, config.batch_size) * config.epochs)


class Fit:
    """One run of training: its fixed parts, and its state, which alone changes.

    Args:
        model: on its device.
        task: gives loss and count.
        rows: the training rows.
        run: the settings.
        accelerator: for precision and scaling.
    """

    def __init__(self, model: Model, task: Task, rows: EncodedRows, run: RunConfig, accelerator: Accelerator) -> None:
        self.task, self.rows, self.run, self.config = task, rows, run, run.train
        self.accelerator = accelerator
        self.total = total_steps(len(rows), self.config)
        self.factor = schedule(self.config, self.total)
        self.model = model
        self.num_active: int | None = None
        """Word vectors that are trained, where not all of them are."""
        if self.config.active_vocabulary and model.encoder.activate(torch.from_numpy(rows.used_ids())) is not None:
            self.num_active = len(model.encoder.word_embeddings())
        model.to(accelerator.device)
        optimizer = build_optimizer(model, self.config)
        self._forward, self._optimizer = accelerator.prepare(model, optimizer)
        ema = EMA(model, self.config.ema) if self.config.ema else None
        self.state = TrainState(model, optimizer, ema, accelerator.scaler)

    def batches(self) -> Iterator[list[int]]:
        """Yield the rows of each batch still to come; the place in them is part of the state."""
        progress = self.state.progress
        size = self.config.batch_size
        while True:
            order = epoch_order(len(self.rows), self.run.seed, progress.epoch)
            for start in range(progress.position * size, len(order), size):
                yield order[start : start + size].tolist()
            progress.epoch += 1
            progress.position = 0

    def step(self, rows: list[int]) -> None:
        """Make the weights better by one batch."""
        config, progress = self.config, self.state.progress
        # Where rows depend on one another, `_backward_joint` cuts their texts instead.
        parts = [rows] if self.task.joint else micro_batches(rows, self.rows.lengths, config.accumulate, config.max_tokens)
        batches = [self.rows.batch(part, self.task.collate_target) for part in parts]
        count = sum(self.task.count(batch) for batch in batches)
        batches = [batch.to(self.accelerator.device) for batch in batches]
        set_rates(self.state.optimizer, self.factor(progress.step))
        self._optimizer.zero_grad()
        loss = self._backward(batches, count)
        if config.fgm:
            with fgm(self.model.encoder.word_embeddings(), config.fgm):
                self._backward(batches, count)
        if config.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        self._optimizer.step()
        progress.step += 1
        progress.position += 1
        if self.state.ema is not None:
            self.state.ema.update(self.model, progress.step)
        self.state.loss = loss if self.state.loss is None else self.state.loss + loss
        self.state.count += count

    def _backward(self, batches: list[Batch], count: float) -> Tensor:
        """Add the gradient of the mean loss over all micro-batches; return the summed loss, still on the device."""
        total = torch.zeros((), device=self.accelerator.device)
        for batch in batches:
            cuts = self._cuts(batch) if self.task.joint else []
            if len(cuts) > 1:
                total += self._backward_joint(batch, cuts, count)
                continue
            out = self._forward(batch)
            loss = self.task.loss(out, batch)
            if self.config.r_drop:
                again = self._forward(batch)
                # R-Drop, arXiv 2106.14448: the mean of both losses, plus the distance of the two passes.
                loss = (loss + self.task.loss(again, batch)) / 2 + self.config.r_drop * self.task.divergence(out, again)
            self.accelerator.backward(loss / count)
            total += loss.detach()
        return total

    def _cuts(self, batch: Batch) -> list[list[int]]:
        lengths = np.array(batch.ragged.lengths)
        return micro_batches(range(len(lengths)), lengths, self.config.accumulate, self.config.max_tokens)

    def _backward_joint(self, batch: Batch, cuts: list[list[int]], count: float) -> Tensor:
        """Do the same where rows depend on one another, part by part, in the memory of one part.

        First the vectors of all texts, without what a gradient needs; then the loss, and its gradient with respect to the vectors;
        then each part again, with the same dropout, through which that gradient goes on.

        Source: Gao et al. 2021 (GradCache), arXiv 2101.06983.
        """
        parts = [batch.ragged.part(cut[0], cut[-1] + 1) for cut in cuts]
        randomness, vectors = [], []
        with torch.no_grad():
            for part in parts:
                randomness.append(Randomness.now(self.accelerator.device))
                vectors.append(self.model.vectors(part))
        held = torch.cat(vectors).requires_grad_()
        if batch.sides is None:
            raise TrainingError("a loss over the rows of a batch needs rows of several texts")
        loss = self.task.loss(self.model.compare(held, batch.sides), batch)
        self.accelerator.backward(loss / count)
        if held.grad is not None:  # a loss that nothing pulls at has none
            for part, state, grad in zip(parts, randomness, torch.split(held.grad, [len(c) for c in cuts]), strict=True):
                state.again()
                torch.autograd.backward(self.model.vectors(part), grad)
        return loss.detach()

    def gather_loss(self) -> None:
        """Fetch the loss from the device into the state: the one place where the host waits for it.

        Raises:
            TrainingError: the loss is not finite.
        """
        if self.state.loss is None:
            return
        total, progress = float(self.state.loss), self.state.progress
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss is {total} at step {progress.step} of {self.total}; the usual causes are a learning rate that is too "
                "high (train.learning_rate, options) and fp16 (train.precision=bf16 or fp32)"
            )
        progress.since_log.add(total, self.state.count)
        progress.since_epoch.add(total, self.state.count)
        self.state.loss, self.state.count = None, 0.0

    def evaluated(self) -> Any:
        """Return a context in which the model holds the weights that are scored and saved."""
        return self.state.ema.applied(self.model) if self.state.ema is not None else nullcontext()


def fit(work: Fit, evaluate: Evaluate | None, keep: Keep, listener: Listener) -> Outcome:
    """Train until all steps are done or scores stay behind.

    Args:
        work: model, rows and state; training goes on from its state.
        evaluate: scores the dev rows; None when there are none.
        keep: called with the model and its scores whenever it is the best so far.
        listener: hears of progress.
    """
    config, progress = work.config, work.state.progress
    clock = _Clock(work)
    steps_per_epoch = num_batches(len(work.rows), config.batch_size)
    stopped = False
    for rows in work.batches():
        if progress.step >= work.total:
            break
        work.model.train()
        work.step(rows)
        clock.count(rows)
        listener.tick(progress.step, work.total)
        at_end = progress.step == work.total
        ends_epoch = progress.position == steps_per_epoch
        if progress.step % work.run.log.every == 0 or at_end:
            work.gather_loss()
            listener.record("train", clock.line())
        due = ends_epoch if config.eval_every == "epoch" else progress.step % config.eval_every == 0
        if due or at_end:
            work.gather_loss()
            stopped = _evaluate(work, evaluate, keep, listener, clock)
        if ends_epoch or at_end:
            work.gather_loss()
            listener.record("epoch", {"epoch": progress.step / steps_per_epoch, "step": progress.step, "loss": progress.since_epoch.value})
            progress.since_epoch = type(progress.since_epoch)()
        if at_end or stopped:
            break
    return Outcome(
        progress.step, progress.best_step, progress.best, clock.seconds, clock.rows, clock.tokens, stopped and progress.step < work.total
    )


def _evaluate(work: Fit, evaluate: Evaluate | None, keep: Keep, listener: Listener, clock: _Clock) -> bool:
    """Score, keep the model if it is the best, and say whether patience has run out."""
    progress, config = work.state.progress, work.config
    with clock.paused(), work.evaluated():
        if evaluate is None:
            progress.best_step = progress.step
            keep(work.model, {"step": progress.step})
            return False
        loss, scores = evaluate(work.model)
        score = scores.decisive
        sign = 1 if scores.higher_is_better else -1
        first = progress.best is None
        better = first or sign * score > sign * (progress.best or 0.0)
        tied = not first and score == progress.best and loss < progress.best_loss
        epoch = progress.step / num_batches(len(work.rows), config.batch_size)
        record = {
            "step": progress.step, "epoch": round(epoch, 4), "train_loss": progress.since_epoch.value, "dev_loss": loss,
            "best": better or tied, **scores.values,
        }  # fmt: skip
        gained = progress.reference is None or sign * (score - progress.reference) > config.min_gain
        progress.stale = 0 if gained else progress.stale + 1
        progress.reference = score if gained else progress.reference
        if better or tied:
            progress.best, progress.best_loss, progress.best_step = score, loss, progress.step
            keep(work.model, record)
    listener.record("dev", record)
    return config.patience is not None and progress.stale >= config.patience


class _Clock:
    """Measures training alone: evaluation and saving are not counted."""

    def __init__(self, work: Fit) -> None:
        self.work = work
        self.seconds, self.rows, self.tokens = 0.0, 0, 0
        self._started = time.perf_counter()
        self._line = (0.0, 0, 0, work.state.progress.step)

    def count(self, rows: list[int]) -> None:
        """Take in a finished step."""
        self.rows += len(rows)
        self.tokens += int(self.work.rows.lengths[rows].sum())

    def paused(self) -> Any:
        """Return a context whose time is not counted."""
        return _Pause(self)

    def stop(self) -> None:
        """Add the time since the clock last ran."""
        now = time.perf_counter()
        self.seconds += now - self._started
        self._started = now

    def start(self) -> None:
        """Run again from now."""
        self._started = time.perf_counter()

    def line(self) -> JSON:
        """Return one line of progress since the last one."""
        self.stop()
        progress = self.work.state.progress
        seconds, rows, tokens, step = self._line
        spent = max(self.seconds - seconds, 1e-9)
        done = max(progress.step - step, 1)
        self._line = (self.seconds, self.rows, self.tokens, progress.step)
        loss, progress.since_log = progress.since_log.value, type(progress.since_log)()
        steps_per_epoch = num_batches(len(self.work.rows), self.work.config.batch_size)
        return {
            "step": progress.step,
            "epoch": round(progress.step / steps_per_epoch, 4),
            "loss": loss,
            "learning_rate": max(group["lr"] for group in self.work.state.optimizer.param_groups),
            "rows_per_s": (self.rows - rows) / spent,
            "tokens_per_s": (self.tokens - tokens) / spent,
            "eta_s": (self.work.total - progress.step) * spent / done,
        }


class _Pause:
    def __init__(self, clock: _Clock) -> None:
        self.clock = clock

    def __enter__(self) -> None:
        self.clock.stop()

    def __exit__(self, *_: object) -> None:
        self.clock.start()
