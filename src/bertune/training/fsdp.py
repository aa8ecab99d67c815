"""A model in pieces: each of several processes keeps its part of parameters, gradients and optimizer (FSDP).

Parameters come together when a step begins and stay so until its last backward pass, whose gradients are summed and cut again. So in
between a process may have as many micro-batches as it likes, and none waits for another; AdamW's two moments are in pieces always.

Sources: Zhao et al. 2023, arXiv 2304.11277, its sharding of gradients and optimizer; `torch.distributed.fsdp.fully_shard` makes the pieces.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bertune.distributed import num_processes
from bertune.heads.model import Model


class Shards:
    """A model that is kept in pieces, and a whole one to score and to save.

    Args:
        model: on its device; its parameters are in pieces afterwards.
    """

    def __init__(self, model: Model) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        self.whole = copy.deepcopy(model)
        """A model of plain tensors; see `gather`."""
        device = next(model.parameters()).device
        mesh = init_device_mesh(device.type, (num_processes(),))
        self._units: list[Any] = [*_layers(model), model]  # from the inside to the outside
        self._model = model
        for unit in self._units:
            fully_shard(unit, mesh=mesh, reshard_after_forward=False)
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
            unit.set_reshard_after_backward(False, recurse=False)
        register_fsdp_forward_method(model, "vectors")

    def begin(self) -> None:
        """Bring the parameters together for a step."""
        for unit in self._units:
            unit.unshard()

    def next_backward(self, *, last: bool) -> None:
        """Say whether the backward pass to come is the last of this step: its gradients are summed over all processes."""
        self._model.set_requires_gradient_sync(last)  # type: ignore[operator]

    def end(self) -> None:
        """Cut parameters and gradients again."""
        for unit in self._units:
            unit.reshard()

    def gather(self) -> Model:
        """Return the whole model with the weights as they are. Called by all processes."""
        with torch.no_grad():
            self.whole.load_state_dict({name: full(tensor) for name, tensor in self._model.state_dict().items()})
        return self.whole


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of an encoder: the longest list of modules in it."""
    lists: list[Any] = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [*max(lists, key=len, default=[])]


def full(tensor: Tensor) -> Tensor:
    """Return a tensor that is whole. Called by all processes where it is in pieces."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """Return a whole tensor cut as `pattern` is, where that is in pieces."""
    if not hasattr(pattern, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    cut: Tensor = distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)  # type: ignore[attr-defined]
    return cut
