"""Linear layers with an activation, which compute in the precision of their input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_tanh_gelu = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x, "gelu": F.gelu, "gelu_new": _tanh_gelu, "gelu_pytorch_tanh": _tanh_gelu,
    "relu": F.relu, "silu": F.silu, "swish": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
}  # fmt: skip
"""Activations by their names in config.json."""

FUSED_ACTIVATIONS = {
    "none": ("none", "none"),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
}
"""Activations that oneDNN computes inside the matrix product: oneDNN's name and algorithm."""


class Linear(nn.Linear):
    """activation(Wx + b). The weights stay in fp32 and are cast to the precision of `x`."""

    prepared: tuple[object, Callable[[Tensor], Tensor]] | None = None
    """The version of the weights when they were cast for inference, and the layer as a function."""

    def __init__(self, in_features: int, out_features: int, activation: str = "none") -> None:
        super().__init__(in_features, out_features)
        self.activation = activation

    def reset_parameters(self) -> None:
        """Draw nothing. Weights come from a checkpoint; `Bert.init_weights` draws those that it lacks."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, inputs) to (T, outputs)."""
        prepared = self.prepared  # read once: another thread may release it
        if prepared is not None and not torch.is_grad_enabled() and prepared[0] == self._weights_key(x.dtype):
            return prepared[1](x)
        return ACTIVATIONS[self.activation](F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype)))

    def prepare_inference(self, dtype: torch.dtype) -> None:
        """Cast the weights once for many calls without gradients.

        A call after a change of the weights notices the change and casts them itself.
        """
        weight, bias = self.weight.detach().to(dtype), self.bias.detach().to(dtype)
        activation = ACTIVATIONS[self.activation]
        compute = _packed(weight, bias, self.activation) or (lambda x: activation(F.linear(x, weight, bias)))
        self.prepared = self._weights_key(dtype), compute

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: not the prepared weights, which belong to this process."""
        return {name: value for name, value in self.__dict__.items() if name != "prepared"}

    def _weights_key(self, dtype: torch.dtype) -> object:
        return dtype, weights_version((self.weight, self.bias))

    def end_inference(self) -> None:
        """Release the weights that `prepare_inference` cast."""
        self.prepared = None


def weights_version(parameters: Iterable[Tensor]) -> object:
    """Return a value that changes when the weights do: their addresses, and how often they were written."""
    return [(parameter.data_ptr(), parameter._version) for parameter in parameters]


class Embedding(nn.Embedding):
    """Vectors by number; `Bert.init_weights` draws those that a checkpoint lacks."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


def _packed(weight: Tensor, bias: Tensor, activation: str) -> Callable[[Tensor], Tensor] | None:
    """Return a bf16 layer whose weights are already in oneDNN's order; otherwise each call reorders them.

    The operators are those of torch.compile. Returns None where they are not available.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or activation not in FUSED_ACTIVATIONS:
        return None
    try:
        reordered = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        linear = torch.ops.mkldnn._linear_pointwise
        linear(weight.new_zeros(1, weight.shape[1]), reordered, bias, *_activation_arguments(activation))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return lambda x: linear(x, reordered, bias, *_activation_arguments(activation))


def _activation_arguments(activation: str) -> tuple[str, list[float], str]:
    name, algorithm = FUSED_ACTIVATIONS[activation]
    return name, [], algorithm
