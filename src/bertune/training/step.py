"""One optimizer step: a batch, its gradient from all its parts and all processes, and what can go wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bertune.config.schema import RunConfig, TrainConfig
from bertune.data.batching import epoch_order, micro_batches, num_batches, shares
from bertune.data.dataset import EncodedDataset
from bertune.distributed import all_reduce_gradients, all_reduce_sum, num_processes, rank
from bertune.errors import TrainingError
from bertune.heads.model import Model
from bertune.tasks.base.task import Task
from bertune.training.fsdp import Shards, full
from bertune.training.nonfinite import ADVICE, culprits, described
from bertune.training.oom import is_out_of_memory
from bertune.training.optim import build_optimizer, schedule, set_rates
from bertune.training.regularization import EMA, fgm
from bertune.training.rng import Randomness, seed_process
from bertune.training.signals import Interrupts
from bertune.training.state import TrainState
from bertune.types import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator


def total_steps(num_rows: int, config: TrainConfig) -> int:
    """Return the number of optimizer steps of a run."""
    if config.max_steps is not None:
        return config.max_steps
    return math.ceil(num_batches(num_rows, config.batch_size) * config.epochs)


class TrainStep:
    """One run of training: its fixed parts, and its state, which alone changes.

    Args:
        model: on its device.
        task: gives loss and count.
        rows: the training rows.
        run: the settings.
        accelerator: for device, precision and scaling.
        place_of: names a training row by file and line.
    """

    def __init__(
        self, model: Model, task: Task, rows: EncodedDataset, run: RunConfig, accelerator: Accelerator, place_of: Callable[[int], str] = str
    ) -> None:
        self.task, self.rows, self.run, self.config = task, rows, run, run.train
        self.accelerator, self.device, self.place_of = accelerator, accelerator.device, place_of
        self.total = total_steps(len(rows), self.config)
        self.factor = schedule(self.config, self.total)
        self.model = model
        self.interrupts = Interrupts()
        self.tell: Callable[[str], None] = lambda _: None
        """Hears of trouble that training goes on after."""
        self._unchecked: tuple[int, list[int], Tensor] | None = None
        self._several_stop = False
        self.num_active: int | None = None
        """Word vectors that are trained, where not all of them are."""
        if (
            self.config.active_vocabulary
            and not self.config.shard
            and model.encoder.activate(torch.from_numpy(rows.used_ids())) is not None
        ):
            self.num_active = len(model.encoder.word_embeddings())
        model.to(self.device)
        self.shards = Shards(model) if self.config.shard and num_processes() > 1 else None
        optimizer = build_optimizer(model, self.config)
        self._optimizer = accelerator.prepare(optimizer)
        if rank():  # or all processes would drop the same values
            seed_process(run.seed, 0, rank())
        ema = EMA(model, self.config.ema) if self.config.ema else None
        self.state = TrainState(model, optimizer, ema, accelerator.scaler)

    def batches(self) -> Iterator[list[int]]:
        """Yield the rows of each batch still to come, all processes together; the place in them is part of the state."""
        progress = self.state.progress
        size = self.config.batch_size
        while True:
            order = epoch_order(len(self.rows), self.run.seed, progress.epoch)
            for start in range(progress.position * size, len(order), size):
                yield order[start : start + size].tolist()
            progress.epoch += 1
            progress.position = 0

    @property
    def must_stop(self) -> bool:
        """Tell whether a signal came. Several processes look at what they have agreed on in the last step, or each would stop elsewhere."""
        return self._several_stop if num_processes() > 1 else self.interrupts.number is not None

    def step(self, rows: list[int]) -> None:
        """Make the weights better by one batch."""
        progress = self.state.progress
        set_rates(self.state.optimizer, self.factor(progress.step))
        loss, count, finite = self._gradient(rows)
        norm = full(self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm or math.inf))
        if self._may_be_applied(rows, loss if self.state.scaler is not None else loss + norm, finite):
            self._optimizer.step()
            if self.state.ema is not None:
                self.state.ema.update(self.model, progress.step + 1)
            self.state.loss = loss if self.state.loss is None else self.state.loss + loss
            self.state.count += count
        progress.step += 1
        progress.position += 1

    def _gradient(self, rows: list[int]) -> tuple[Tensor, float, bool]:
        """Leave the gradient of the mean loss of a batch in the parameters; where memory is short, in smaller parts.

        Returns:
            The summed loss of this process, still on the device; what it is divided by; and whether all processes have a finite one.
        """
        before = Randomness.now(self.device)
        while True:
            loss, count, short = self._tried(rows)
            # Several processes must agree; one alone looks at its loss in `_may_be_applied`, which need not wait for a GPU.
            flags = [float(short is not None), float(loss is not None and num_processes() > 1 and not math.isfinite(float(loss)))]
            several_short, not_finite = all_reduce_sum(flags, self.device)
            if loss is not None and not several_short:
                self._sum_gradients()
                return loss, count, not not_finite
            loss = None
            self._cut_further(rows, short)
            before.again(self.device)

    def _tried(self, rows: list[int]) -> tuple[Tensor | None, float, str | None]:
        """Compute the gradient; without a loss, but with what was said, where memory was short."""
        progress, config = self.state.progress, self.config
        own = shares(rows, self.rows.lengths, num_processes())[rank()]
        # Where rows depend on one another, `_backward_joint` cuts their texts instead.
        parts = [own] if self.task.joint else self._parts(own, self.rows.lengths)
        idle = self.shards is not None and not own  # a process with pieces must take part in every sum
        parts = [[rows[0]]] if idle else parts
        batches = [self.rows.batch(part, self.task.collate_target) for part in parts]
        wish = float(self.interrupts.number or 0)
        count, wishes = all_reduce_sum([0.0 if idle else sum(self.task.count(batch) for batch in batches), wish], self.device)
        self._several_stop = bool(wishes)
        self._optimizer.zero_grad()
        if self.shards is not None:
            self.shards.begin()
        loss, short = self._unless_short(batches, math.inf if idle else count)
        if config.fgm and not all_reduce_sum([float(short is not None)], self.device)[0]:
            self._sum_gradients()  # every process must go the same way
            for parameter in self.model.parameters():
                if parameter.grad is not None and num_processes() > 1:
                    parameter.grad /= num_processes()
            with fgm(self.model.encoder.word_embeddings(), config.fgm):
                _, short = self._unless_short(batches, count)
        if loss is None or short is not None:
            return None, count, f"{short} (step {progress.step + 1})"
        return (torch.zeros_like(loss) if idle else loss), count, None

    def _unless_short(self, batches: list[Batch], count: float) -> tuple[Tensor | None, str | None]:
        """Add the gradient of some batches; return the summed loss, or what was said where memory was short."""
        try:
            return self._backward([batch.to(self.device) for batch in batches], count), None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or (num_processes() > 1 and self._sums_inside):
                raise
            return None, (str(error).splitlines() or ["no more is known"])[0]

    @property
    def _sums_inside(self) -> bool:
        """Tell whether several processes sum something in the middle of a step, so that none may begin it anew."""
        return self.task.joint or self.shards is not None

    def _parts(self, rows: list[int], lengths: Any) -> list[list[int]]:
        """Cut rows into micro-batches, further where memory was short before."""
        cuts, most = self.state.progress.cuts, self.config.max_tokens
        if not rows:
            return []
        return micro_batches(rows, lengths, self.config.accumulate * cuts, max(1, most // cuts) if most else None)

    def _cut_further(self, rows: list[int], short: str | None) -> None:
        """Halve the micro-batches from now on.

        Raises:
            TrainingError: they hold one row each already.
        """
        self._optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        progress = self.state.progress
        if self.config.accumulate * progress.cuts >= len(rows) * (4 if self.task.joint else 1):
            longest = max(rows, key=lambda row: int(self.rows.lengths[row]))
            raise TrainingError(
                f"memory is short for a single row: {short}; the longest of this batch is {self.place_of(longest)} with "
                f"{int(self.rows.lengths[longest])} tokens. Set data.max_length lower, or take a smaller encoder"
            )
        progress.cuts *= 2
        why = short or "in another process"
        self.tell(
            f"memory is short: {why}; the step is done again in micro-batches half as large, and so is all that follows. The batch stays "
            f"the same; train.accumulate={self.config.accumulate * progress.cuts} does so from the start"
        )

    def _may_be_applied(self, rows: list[int], watched: Tensor, finite: bool) -> bool:
        """Tell whether loss and gradient are finite. One GPU alone is asked a step later, so that it need not be waited for.

        Raises:
            TrainingError: they are not, and no such step may be passed over any more.
        """
        step = self.state.progress.step + 1
        if self.device.type == "cpu" or num_processes() > 1 or self.config.skip_nonfinite:
            return self._is_finite(step, rows, watched, finite)
        self.check_last()
        self._unchecked = (step, rows, watched)
        return True

    def check_last(self) -> None:
        """Look at the last step, if that was put off.

        Raises:
            TrainingError: its loss or gradient was not finite.
        """
        unchecked, self._unchecked = self._unchecked, None
        if unchecked is not None:
            self._is_finite(*unchecked)

    def _is_finite(self, step: int, rows: list[int], watched: Tensor, finite: bool = True) -> bool:
        if finite and math.isfinite(float(watched)):
            return True
        progress = self.state.progress
        self._optimizer.zero_grad()
        odd = []
        blamed = "its rows cannot be looked at one by one"
        if num_processes() == 1 and not self.task.joint:
            odd = culprits(self.model, self.task, self.rows, rows, self.device)
            blamed = "none of its rows alone is to blame"
        if odd:
            whole = len(odd) == len(rows)
            blamed = "all of its rows are so, hence the weights" if whole else f"to blame: {described(odd, self.place_of)}"
        what = f"loss or gradient is not finite at step {step} of {self.total}; the batch: {described(rows, self.place_of)}; {blamed}"
        if progress.skipped >= self.config.skip_nonfinite:
            raise TrainingError(f"{what}; {ADVICE}")
        progress.skipped += 1
        self.tell(f"{what}; passed over, number {progress.skipped} of {self.config.skip_nonfinite} (train.skip_nonfinite)")
        return False

    def _sum_gradients(self) -> None:
        if self.shards is not None:
            self.shards.end()  # they were summed in the last backward pass
        else:
            all_reduce_gradients(self.model.parameters())

    def scored(self) -> Model:
        """Return the model with its weights as they are, whole, to score and to save. Called by all processes."""
        return self.model if self.shards is None else self.shards.gather()

    def _backward(self, batches: list[Batch], count: float) -> Tensor:
        """Add the gradient of the mean loss over all micro-batches; return the summed loss, still on the device."""
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, 1):
            if self.shards is not None:
                self.shards.next_backward(last=number == len(batches))
            cuts = self._cuts(batch) if self.task.joint else []
            if self.task.joint and len(cuts) != 1:
                total += self._backward_joint(batch, cuts, count)
                continue
            out = self.model(batch)
            loss = self.task.loss(out, batch)
            if self.config.r_drop:
                again = self.model(batch)
                # R-Drop, arXiv 2106.14448: the mean of both losses, plus the distance of the two passes.
                loss = (loss + self.task.loss(again, batch)) / 2 + self.config.r_drop * self.task.divergence(out, again)
            self.accelerator.backward(loss / count)
            total += loss.detach()
        return total

    def _cuts(self, batch: Batch) -> list[list[int]]:
        lengths = np.array(batch.ragged.lengths)
        return self._parts(list(range(len(lengths))), lengths)

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
                randomness.append(Randomness.now(self.device))
                vectors.append(self.model.vectors(part))
        nothing = torch.zeros(0, self.model.vector_size, device=self.device)  # a process may have no row of a small batch
        held = torch.cat(vectors or [nothing]).requires_grad_()
        if batch.sides is None:
            raise TrainingError("a loss over the rows of a batch needs rows of several texts")
        loss = self.task.loss(self.model.compare(held, batch.sides), batch)
        self.accelerator.backward(loss / count)
        if held.grad is not None:  # a loss that nothing pulls at has none
            for part, state, grad in zip(parts, randomness, torch.split(held.grad, [len(c) for c in cuts]), strict=True):
                state.again(self.device)
                torch.autograd.backward(self.model.vectors(part), grad)
        return loss.detach()

    def gather_loss(self) -> None:
        """Fetch the loss from the device and from all processes into the state: the one place where the host waits for it.

        Raises:
            TrainingError: the last step's was not finite.
        """
        self.check_last()
        if self.state.loss is None:
            return
        total, progress = all_reduce_sum([float(self.state.loss)], self.device)[0], self.state.progress
        progress.since_log.add(total, self.state.count)
        progress.since_epoch.add(total, self.state.count)
        self.state.loss, self.state.count = None, 0.0

    def evaluated(self) -> Any:
        """Return a context in which the model holds the weights that are scored and saved."""
        return self.state.ema.applied(self.model) if self.state.ema is not None else nullcontext()
