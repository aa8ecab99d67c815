"""A sharded model: each of several processes keeps its part of parameters, gradients and optimizer (FSDP).

Parameters are gathered when a step begins and stay whole until its last backward pass, whose gradients are
summed and sharded again. So within a step a process may have any number of micro-batches, and none waits for
another; the moments of AdamW are sharded always.

Sources: Zhao et al. 2023, arXiv 2304.11277, its sharding of gradients and optimizer;
`torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bertune.distributed import num_processes
from bertune.heads.model import Model


class ShardedModel:
    """Controls a model whose parameters are sharded, and holds a whole copy to score and to save.

    Args:
        model: on its device; its parameters are sharded afterwards.
    """

    def __init__(self, model: Model) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        self.full_model = copy.deepcopy(model)
        """A copy with plain tensors; see `gather`."""
        device = next(model.parameters()).device
        mesh = init_device_mesh(device.type, (num_processes(),))
        self._units: list[Any] = [*_layers(model), model]  # from the inside to the outside
        self._model = model
        for unit in self._units:
            fully_shard(unit, mesh=mesh, reshard_after_forward=False)
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
            unit.set_reshard_after_backward(False, recurse=False)
        register_fsdp_forward_method(model, "vectors")

    def unshard(self) -> None:
        """Gather the parameters for a step."""
        for unit in self._units:
            unit.unshard()

    def sync_gradients(self, sync: bool) -> None:
        """Say whether the next backward pass sums gradients over all processes.

        The last one of a step does.
        """
        self._model.set_requires_gradient_sync(sync)  # type: ignore[operator]

    def reshard(self) -> None:
        """Shard parameters and gradients again."""
        for unit in self._units:
            unit.reshard()

    def gather(self) -> Model:
        """Return the whole copy with the present weights. All processes call it."""
        with torch.no_grad():
            self.full_model.load_state_dict(
                {name: full_tensor(t) for name, t in self._model.state_dict().items()}
            )
        return self.full_model


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of an encoder: the longest list of modules in it."""
    lists: list[Any] = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [*max(lists, key=len, default=[])]


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a whole tensor; where it is sharded, all processes call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def shard_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """Return a whole tensor, sharded as `pattern` is where that is sharded."""
    if not hasattr(pattern, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = pattern.device_mesh, pattern.placements  # type: ignore[attr-defined]
    sharded: Tensor = distribute_tensor(tensor.to(pattern.device), mesh, placements)
    return sharded
