"""Random number generators of training: seeding them, and their states as JSON."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertune.kernels.dropout import DROPOUT_GENERATOR
from bertune.types import JSON


def seed_everything(seed: int) -> None:
    """Seed every generator, before the head's first weights are drawn."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    DROPOUT_GENERATOR.seed(seed)


def seed_process(seed: int, step: int, rank: int) -> None:
    """Seed the generators of dropout in one of several processes: no two processes may drop the same values.

    Args:
        seed: seed of the run.
        step: steps done.
        rank: number of the process.
    """
    own_seed = int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(own_seed)
    DROPOUT_GENERATOR.seed(own_seed)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of `Task.prepare`: the same in all processes and micro-batches of a step.

    Args:
        seed: seed of the run.
        step: steps done.
    """
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class RngState:
    """The state of the generators of dropout.

    With it a forward pass can be repeated with the same dropout.
    """

    torch_state: Tensor
    device_state: Tensor | None
    bytes_state: JSON

    @classmethod
    def capture(cls, device: torch.device) -> RngState:
        """Return the present state."""
        return cls(torch.get_rng_state(), _device_state(device), DROPOUT_GENERATOR.get_state())

    def restore(self, device: torch.device) -> None:
        """Go back to this state."""
        torch.set_rng_state(self.torch_state)
        if self.device_state is not None:
            _set_device_state(device, self.device_state)
        DROPOUT_GENERATOR.set_state(self.bytes_state)


def rng_states(device: torch.device) -> JSON:
    """Return the state of every generator of this process as JSON values."""
    on_device = _device_state(device)
    version, inner, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": _encode(torch.get_rng_state()),
        "device": None if on_device is None else {"type": device.type, "state": _encode(on_device)},
        "python": [version, list(inner), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "bytes": DROPOUT_GENERATOR.get_state(),
    }


def restore_rng_states(states: JSON, device: torch.device) -> None:
    """Restore what `rng_states` returned."""
    torch.set_rng_state(_decode(states["torch"]))
    if states["device"] is not None and states["device"]["type"] == device.type:
        _set_device_state(device, _decode(states["device"]["state"]))
    version, inner, gauss = states["python"]
    random.setstate((version, tuple(inner), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
    DROPOUT_GENERATOR.set_state(states["bytes"])


def _device_state(device: torch.device) -> Tensor | None:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def _set_device_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.mps.set_rng_state(state)


def _encode(state: Tensor) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode("ascii")


def _decode(text: str) -> Tensor:
    array: Any = np.frombuffer(base64.b64decode(text), np.uint8).copy()
    return torch.from_numpy(array)
