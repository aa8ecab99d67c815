"""Everything that training changes, as one object that can be written and read back.

The rest is a function of the settings: the order of rows comes from seed and epoch, the learning rate from
the step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bertune.artifact.upgrade import upgrade_training_state
from bertune.distributed import all_gather_object, num_processes, rank
from bertune.encoders.active_vocabulary import ActiveVocabulary
from bertune.errors import ArtifactError
from bertune.heads.model import Model
from bertune.tensor_file import write_tensors
from bertune.training.fsdp import full_tensor, shard_like
from bertune.training.regularization import EMA
from bertune.training.rng import restore_rng_states, rng_states, seed_process
from bertune.types import JSON

STATE = "state.safetensors"
"""The file in a checkpoint's folder that holds the state."""


@dataclass
class Mean:
    """A running mean: a sum and its count."""

    total: float = 0.0
    count: float = 0.0

    def add(self, total: float, count: float) -> None:
        """Add another sum and its count."""
        self.total += total
        self.count += count

    @property
    def value(self) -> float:
        """Return the mean; NaN if nothing was added."""
        return self.total / self.count if self.count else float("nan")


@dataclass
class Progress:
    """Where training stands."""

    step: int = 0
    epoch: int = 0  # epochs begun before this one
    batches_done: int = 0  # of this epoch
    loss_since_log: Mean = field(default_factory=Mean)
    loss_since_epoch: Mean = field(default_factory=Mean)
    best_score: float | None = None
    best_loss: float = float("inf")
    best_step: int = 0
    evals_without_gain: int = 0  # evaluations in a row
    reference_score: float | None = None  # the score that the next gain is measured from
    last_logged_step: int = 0  # the last step that has a line of progress
    last_completed_step: int = 0  # the last step after which everything due was done: evaluation, records
    oom_splits: int = 1  # how many times more micro-batches than the settings ask for, since memory was short
    nonfinite_steps: int = 0  # steps that were skipped, since loss or gradient were not finite


@dataclass
class TrainState:
    """The whole state of a run between two optimizer steps."""

    model: Model
    optimizer: torch.optim.Optimizer
    ema: EMA | None = None
    scaler: Any = None  # torch.amp.GradScaler, with fp16
    progress: Progress = field(default_factory=Progress)
    loss: Tensor | None = None
    """Summed loss of the steps since the host last fetched it; still on the device."""
    count: float = 0.0
    """What that loss is divided by."""

    def capture(self) -> tuple[dict[str, Tensor], JSON]:
        """Return tensors by name, and the rest as JSON: copies that later steps do not change.

        All processes call it.
        """
        tensors, values = self._all()
        return {n: t.clone() for n, t in tensors.items()}, values

    def _all(self) -> tuple[dict[str, Tensor], JSON]:
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        active = self._active_words()
        if active is not None:
            tensors["active_words"] = active
        optimizer = self.optimizer.state_dict()
        for index, slots in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        if self.ema is not None:
            tensors |= {f"ema.{n}": t for n, t in self.ema.shadow.items()}
        values = {
            "progress": asdict(self.progress),
            "losses": all_gather_object(None if self.loss is None else float(self.loss)),  # of each process
            "count": self.count,
            "groups": optimizer["param_groups"],
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "random": all_gather_object(rng_states(self._device)),
        }
        return {n: full_tensor(t.detach()).contiguous() for n, t in tensors.items()}, json.loads(
            json.dumps(values)
        )

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def restore(self, tensors: dict[str, Tensor], values: JSON) -> None:
        """Restore what `capture` returned, bit for bit.

        Raises:
            ArtifactError: it comes from a run on other rows.
        """
        active, before = self._active_words(), tensors.get("active_words")
        if (active is None) != (before is None) or (
            active is not None and before is not None and not torch.equal(active.cpu(), before.cpu())
        ):
            raise ArtifactError(
                "the training state belongs to other training rows: its active vocabulary differs"
            )
        now = self.model.state_dict()
        self.model.load_state_dict(
            {n: shard_like(t, now[n]) for n, t in _without_prefix(tensors, "model.").items()}
        )
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _without_prefix(tensors, "optimizer.").items():
            index, slot = name.split(".", 1)
            parameter = parameters[int(index)]
            slots.setdefault(int(index), {})[slot] = (
                shard_like(tensor.clone(), parameter) if tensor.shape == parameter.shape else tensor.clone()
            )
        self.optimizer.load_state_dict({"state": slots, "param_groups": values["groups"]})
        if self.ema is not None:
            self.ema.shadow = {
                n: t.clone().to(self.ema.shadow[n].device)
                for n, t in _without_prefix(tensors, "ema.").items()
            }
        if self.scaler is not None and values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])
        progress = dict(values["progress"])
        for name in ("loss_since_log", "loss_since_epoch"):
            progress[name] = Mean(**progress[name])
        self.progress = Progress(**progress)
        self._restore_per_process(values)

    def _restore_per_process(self, values: JSON) -> None:
        """Restore what each process has of its own.

        If the number of processes has changed, sums go to the first one.
        """
        losses, states, self.count = values["losses"], values["random"], values["count"]
        if len(states) == num_processes():
            loss = losses[rank()]
            restore_rng_states(states[rank()], self._device)
        else:
            known = [x for x in losses if x is not None]
            loss = sum(known) if known and rank() == 0 else 0.0 if known else None
            restore_rng_states(states[0], self._device)
            seed_process(self.progress.step, num_processes(), rank())
        self.loss = None if loss is None else torch.tensor(loss, device=self._device)

    def _active_words(self) -> Tensor | None:
        """Return the ids of the word vectors that are trained; None if all are."""
        return next(
            (module.active_ids for module in self.model.modules() if isinstance(module, ActiveVocabulary)),
            None,
        )

    def write(self, folder: Path) -> None:
        """Write the state into a folder, as one file that gets its name when it is whole.

        Safetensors, no pickle.

        All processes call it; the first one writes.

        Raises:
            OSError: it cannot be written.
        """
        tensors, values = self._all()
        if rank():
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / STATE, tensors, {"state": json.dumps(values)})

    def read(self, folder: Path) -> None:
        """Read the state from a folder.

        Raises:
            ArtifactError: the file is missing or broken.
        """
        try:
            with safe_open(folder / STATE, framework="pt") as file:
                values = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ArtifactError(f"{folder}: no readable training state: {error}") from None
        self.restore(*upgrade_training_state(tensors, values))


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
