"""One optimizer step: a batch, its gradient over all micro-batches and processes, and what can go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bertune.config.schema import RunConfig
from bertune.data.batching import epoch_order, process_shares
from bertune.data.dataset import EncodedDataset
from bertune.distributed import all_reduce_gradients, all_reduce_sum, num_processes, rank
from bertune.heads.model import Model
from bertune.tasks.base.task import Task
from bertune.training.auto_settings import num_steps, settle_run
from bertune.training.fsdp import ShardedModel, full_tensor
from bertune.training.gradient import gradient_strategy
from bertune.training.nonfinite import FiniteCheck
from bertune.training.oom import is_out_of_memory, split_further
from bertune.training.optim import build_optimizer, lr_schedule, set_learning_rates
from bertune.training.regularization import EMA, fgm
from bertune.training.rng import RngState, seed_process, step_seed
from bertune.training.signals import StopSignals
from bertune.training.state import TrainState
from bertune.types import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainStep:
    """What an optimizer step needs: its fixed parts, and the state, the only part that changes.

    Args:
        model: on its device.
        task: gives loss and count.
        dataset: the training rows.
        run: the settings.
        accelerator: for device, precision and loss scaling.
        location_of: names a training row by file and line.
        warn: hears of problems that training survives.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        dataset: EncodedDataset,
        run: RunConfig,
        accelerator: Accelerator,
        *,
        location_of: Callable[[int], str] = str,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        run, _ = settle_run(run, task, model, len(dataset))  # `set_up_training` has done it and said so
        self.task, self.dataset, self.run, self.config = task, dataset, run, run.train
        self.accelerator, self.device = accelerator, accelerator.device
        self.location_of, self.warn = location_of, warn
        self.total_steps = num_steps(len(dataset), self.config)
        self.model = model
        self.signals = StopSignals()
        self._lr_factor = lr_schedule(self.config, self.total_steps)
        self._some_process_stops = False
        self.num_active_words = self._activate_words()
        """Word vectors that are trained, if not all of them are."""
        model.to(self.device)
        self.sharded = ShardedModel(model) if self.config.fsdp and num_processes() > 1 else None
        optimizer = build_optimizer(model, self.config)
        self._optimizer = accelerator.prepare(optimizer)
        if rank():  # or all processes would drop the same values
            seed_process(run.seed, 0, rank())
        ema = EMA(model, self.config.ema) if self.config.ema else None
        self.state = TrainState(model, optimizer, ema, accelerator.scaler)
        self.gradient = gradient_strategy(model, task, self.config, accelerator.backward)
        self._finite = FiniteCheck(
            model,
            task,
            self._get_batch,
            self.state,
            total_steps=self.total_steps,
            max_skipped=self.config.max_nonfinite_steps,
            rows_are_independent=self.gradient.rows_are_independent,
            location_of=location_of,
            warn=warn,
        )

    def _activate_words(self) -> int | None:
        """Train only the word vectors of the training rows, where settings, model and task allow it."""
        needs_all = self.model.head.reads_word_table or self.task.trains_all_words
        if not self.config.active_vocabulary or self.config.fsdp or needs_all:
            return None
        encoder = self.model.encoder
        active = encoder.use_active_vocabulary(torch.from_numpy(self.dataset.used_ids()))
        return len(encoder.word_embeddings()) if active is not None else None

    def batches(self) -> Iterator[list[int]]:
        """Yield the rows of each batch still to come, for all processes together.

        The position is part of the state.
        """
        progress = self.state.progress
        size = self.config.batch_size
        while True:
            order = epoch_order(len(self.dataset), self.run.seed, progress.epoch)
            for start in range(progress.batches_done * size, len(order), size):
                yield order[start : start + size].tolist()
            progress.epoch += 1
            progress.batches_done = 0

    @property
    def must_stop(self) -> bool:
        """Tell whether a signal came.

        Several processes go by what they agreed on in the last step, or each would stop elsewhere.
        """
        return self._some_process_stops if num_processes() > 1 else self.signals.received is not None

    def step(self, rows: list[int]) -> None:
        """Update the weights with one batch.

        Raises:
            TrainingError: loss or gradient is not finite, or memory is too small for a single row.
        """
        progress = self.state.progress
        set_learning_rates(self.state.optimizer, self._lr_factor(progress.step))
        loss, count, all_finite = self._compute_gradient(rows)
        norm = full_tensor(
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm or math.inf)
        )
        watched = loss if self.state.scaler is not None else loss + norm
        if self._finite.allows(rows, watched, all_finite):
            self._optimizer.step()
            if self.state.ema is not None:
                self.state.ema.update(self.model, progress.step + 1)
            self.state.loss = loss if self.state.loss is None else self.state.loss + loss
            self.state.count += count
        progress.step += 1
        progress.batches_done += 1

    def _compute_gradient(self, rows: list[int]) -> tuple[Tensor, float, bool]:
        """Leave the gradient of the mean loss in the parameters.

        Where memory is short, try again in smaller parts.

        Returns:
            The summed loss of this process, on the device; the count it is divided by; and whether the loss
            is finite everywhere.
        """
        before = RngState.capture(self.device)
        while True:
            loss, count, shortage = self._try_gradient(rows)
            # Several processes must agree; a single one checks its loss in `FiniteCheck`, which need not wait
            # for a GPU.
            nonfinite = loss is not None and num_processes() > 1 and not math.isfinite(float(loss))
            any_shortage, any_nonfinite = all_reduce_sum(
                [float(shortage is not None), float(nonfinite)], self.device
            )
            if loss is not None and not any_shortage:
                self._sum_gradients()
                return loss, count, not any_nonfinite
            loss = None
            self._split_further(rows, shortage)
            before.restore(self.device)

    def _try_gradient(self, rows: list[int]) -> tuple[Tensor | None, float, str | None]:
        """Compute the gradient. If memory runs out, return no loss but what the allocator said."""
        progress = self.state.progress
        own = process_shares(rows, self.dataset.lengths, num_processes())[rank()]
        parts = self.gradient.micro_batches(own, self.dataset.lengths, progress.oom_splits)
        idle = self.sharded is not None and not own  # a process with a shard must take part in every sum
        parts = [[rows[0]]] if idle else parts
        batches = [self._get_batch(part, progress.step) for part in parts]
        own_count = 0.0 if idle else sum(self.task.loss_denominator(batch) for batch in batches)
        count, stops = all_reduce_sum([own_count, float(self.signals.received or 0)], self.device)
        self._some_process_stops = bool(stops)
        self._optimizer.zero_grad()
        if self.sharded is not None:
            self.sharded.unshard()
        loss, shortage = self._add_gradients(batches, math.inf if idle else count)
        if self.config.fgm and not all_reduce_sum([float(shortage is not None)], self.device)[0]:
            shortage = self._add_adversarial_gradients(batches, count)
        if loss is None or shortage is not None:
            return None, count, f"{shortage} (step {progress.step + 1})"
        return (torch.zeros_like(loss) if idle else loss), count, None

    def _get_batch(self, rows: list[int], step: int) -> Batch:
        """Return rows as a batch, as the task prepares it for a step; `step` counts from 0."""
        batch = self.dataset.get_batch(rows, self.task.collate_target)
        return self.task.prepare(batch, step_seed(self.run.seed, step))

    def _add_gradients(self, batches: list[Batch], count: float) -> tuple[Tensor | None, str | None]:
        """Add the gradient of some micro-batches.

        Return their summed loss, or what the allocator said when memory ran out.
        """
        total = torch.zeros((), device=self.device)
        try:
            for number, batch in enumerate([batch.to(self.device) for batch in batches], 1):
                if self.sharded is not None:
                    self.sharded.sync_gradients(number == len(batches))
                total += self.gradient.backward(batch, count, self.state.progress.oom_splits)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or (num_processes() > 1 and self._communicates_within_step):
                raise
            return None, (str(error).splitlines() or ["the allocator gave no reason"])[0]
        return total, None

    def _add_adversarial_gradients(self, batches: list[Batch], count: float) -> str | None:
        """Add the gradient at word embeddings that are moved along their gradient (FGM).

        Return what `_add_gradients` says.
        """
        self._sum_gradients()  # every process must move the same way
        for parameter in self.model.parameters():
            if parameter.grad is not None and num_processes() > 1:
                parameter.grad /= num_processes()
        with fgm(self.model.encoder.word_embeddings(), self.config.fgm or 0.0):
            return self._add_gradients(batches, count)[1]

    @property
    def _communicates_within_step(self) -> bool:
        """Tell whether processes exchange tensors within a step: then none may repeat it alone."""
        return not self.gradient.rows_are_independent or self.sharded is not None

    def _split_further(self, rows: list[int], shortage: str | None) -> None:
        self._optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        # Rows are cut one by one, or their texts; one part more, since parts double.
        parts_per_row = 1 if self.gradient.rows_are_independent else self.dataset.max_texts_per_row + 1
        max_parts = len(rows) * parts_per_row
        self.warn(
            split_further(
                self.state.progress,
                self.config,
                rows,
                self.dataset.lengths,
                max_parts=max_parts,
                reason=shortage,
                location_of=self.location_of,
            )
        )

    def _sum_gradients(self) -> None:
        if self.sharded is not None:
            self.sharded.reshard()  # gradients were summed in the last backward pass
        else:
            all_reduce_gradients(self.model.parameters())

    def check_last_step(self) -> None:
        """Check the last step, if a GPU deferred that.

        Raises:
            TrainingError: its loss or gradient was not finite.
        """
        self._finite.check_deferred()

    def fetch_loss(self) -> None:
        """Move the summed loss from the device and from all processes into the progress.

        The one place where the host waits for it.

        Raises:
            TrainingError: the last step's loss or gradient was not finite.
        """
        self.check_last_step()
        if self.state.loss is None:
            return
        total, progress = all_reduce_sum([float(self.state.loss)], self.device)[0], self.state.progress
        progress.loss_since_log.add(total, self.state.count)
        progress.loss_since_epoch.add(total, self.state.count)
        self.state.loss, self.state.count = None, 0.0

    def whole_model(self) -> Model:
        """Return the model with its present weights, not sharded, to score and to save.

        All processes call it.
        """
        return self.model if self.sharded is None else self.sharded.gather()

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the model holds the weights to score and to save.

        The EMA's, if there is one.
        """
        return self.state.ema.applied(self.model) if self.state.ema is not None else nullcontext()
