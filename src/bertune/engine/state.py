"""Everything that training changes, as one object that can be written and read back.

What is not here is a function of the run's settings: the order of rows comes from seed and epoch, the learning rate
from the number of steps.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bertune.engine.tricks import EMA
from bertune.errors import ArtifactError
from bertune.model import Model
from bertune.model.dropout import BYTES
from bertune.model.vocabulary import ActiveVocabulary
from bertune.types import JSON


@dataclass
class Mean:
    """A sum and what it is divided by."""

    total: float = 0.0
    count: float = 0.0

    def add(self, total: float, count: float) -> None:
        """Take in another sum."""
        self.total += total
        self.count += count

    @property
    def value(self) -> float:
        """Return the mean, or NaN of nothing."""
        return self.total / self.count if self.count else float("nan")


@dataclass(frozen=True)
class Randomness:
    """The state of what dropout draws from, so that a part of the model can be computed twice with the same dropout."""

    torch_state: Tensor
    cuda_state: Tensor | None
    bytes_state: JSON

    @classmethod
    def now(cls, device: torch.device) -> Randomness:
        """Return the state as it is."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None, BYTES.state())

    def again(self) -> None:
        """Go back to this state."""
        torch.set_rng_state(self.torch_state)
        if self.cuda_state is not None:
            torch.cuda.set_rng_state(self.cuda_state)
        BYTES.restore(self.bytes_state)


@dataclass
class Progress:
    """Where training stands."""

    step: int = 0
    epoch: int = 0  # epochs begun before this one
    position: int = 0  # batches of this epoch done
    since_log: Mean = field(default_factory=Mean)
    since_epoch: Mean = field(default_factory=Mean)
    best: float | None = None
    best_loss: float = float("inf")
    best_step: int = 0
    stale: int = 0  # evaluations in a row without gain
    reference: float | None = None  # the score that the next gain is measured from


@dataclass
class TrainState:
    """The whole state of a run between two optimizer steps."""

    model: Model
    optimizer: torch.optim.Optimizer
    ema: EMA | None = None
    scaler: Any = None  # torch.amp.GradScaler, with fp16
    progress: Progress = field(default_factory=Progress)
    loss: Tensor | None = None
    """Summed loss of the steps since the host last asked for it: still on the device."""
    count: float = 0.0
    """What that loss is to be divided by."""

    def capture(self) -> tuple[dict[str, Tensor], JSON]:
        """Return tensors by name, and the rest as JSON."""
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        active = self._active_words()
        if active is not None:
            tensors["active_words"] = active
        optimizer = self.optimizer.state_dict()
        for index, slots in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        if self.ema is not None:
            tensors |= {f"ema.{n}": t for n, t in self.ema.shadow.items()}
        if self.loss is not None:
            tensors["loss"] = self.loss
        tensors["random.torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors |= {f"random.cuda.{i}": t for i, t in enumerate(torch.cuda.get_rng_state_all())}
        if torch.backends.mps.is_available():
            tensors["random.mps"] = torch.mps.get_rng_state()
        values = {
            "progress": asdict(self.progress),
            "count": self.count,
            "groups": optimizer["param_groups"],
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "random_python": random.getstate(),
            "random_numpy": _numpy_state(),
            "random_bytes": BYTES.state(),
        }
        return {n: t.detach().clone().contiguous() for n, t in tensors.items()}, json.loads(json.dumps(values))

    def restore(self, tensors: dict[str, Tensor], values: JSON) -> None:
        """Take back what `capture` gave, bit for bit.

        Raises:
            ArtifactError: it was taken from a run on other rows.
        """
        active, before = self._active_words(), tensors.get("active_words")
        if (active is None) != (before is None) or (
            active is not None and before is not None and not torch.equal(active.cpu(), before.cpu())
        ):
            raise ArtifactError("the training state is of other training rows: its active vocabulary is not that of these")
        self.model.load_state_dict(_under(tensors, "model."))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(tensors, "optimizer.").items():
            index, slot = name.split(".", 1)
            slots.setdefault(int(index), {})[slot] = tensor.clone()
        self.optimizer.load_state_dict({"state": slots, "param_groups": values["groups"]})
        if self.ema is not None:
            self.ema.shadow = {n: t.clone().to(self.ema.shadow[n].device) for n, t in _under(tensors, "ema.").items()}
        if self.scaler is not None and values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])
        torch.set_rng_state(tensors["random.torch"].cpu())
        on_gpus = _under(tensors, "random.cuda.")
        if on_gpus and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([on_gpus[str(i)].cpu() for i in range(len(on_gpus))])
        if "random.mps" in tensors and torch.backends.mps.is_available():
            torch.mps.set_rng_state(tensors["random.mps"].cpu())
        version, inner, gauss = values["random_python"]
        random.setstate((version, tuple(inner), gauss))
        kind, keys, place, has_gauss, cached = values["random_numpy"]
        np.random.set_state((kind, np.array(keys, np.uint32), place, has_gauss, cached))
        BYTES.restore(values["random_bytes"])
        progress = dict(values["progress"])
        for name in ("since_log", "since_epoch"):
            progress[name] = Mean(**progress[name])
        self.progress = Progress(**progress)
        device = next(self.model.parameters()).device
        self.loss, self.count = (tensors["loss"].to(device) if "loss" in tensors else None), values["count"]

    def _active_words(self) -> Tensor | None:
        """Return which rows of the word table are trained, where not all of them are."""
        return next((module.active for module in self.model.modules() if isinstance(module, ActiveVocabulary)), None)

    def write(self, folder: Path) -> None:
        """Write the state into a folder, as one file that gets its name when it is whole: safetensors, no pickle."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors, values = self.capture()
        part = folder / "state.safetensors.part"
        save_file(tensors, part, metadata={"state": json.dumps(values)})
        part.replace(folder / "state.safetensors")

    def read(self, folder: Path) -> None:
        """Read the state from a folder.

        Raises:
            ArtifactError: the file is missing or broken.
        """
        try:
            with safe_open(folder / "state.safetensors", framework="pt") as file:
                values = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ArtifactError(f"{folder}: no readable training state: {error}") from None
        self.restore(tensors, values)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _numpy_state() -> list[Any]:
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return [kind, np.asarray(keys).tolist(), int(place), int(has_gauss), float(cached)]
