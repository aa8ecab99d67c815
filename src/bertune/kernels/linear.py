"""Linear layers that compute in whatever precision comes in, with what follows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_tanh_gelu = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x, "gelu": F.gelu, "gelu_new": _tanh_gelu, "gelu_pytorch_tanh": _tanh_gelu, "relu": F.relu, "silu": F.silu,
    "swish": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
}  # fmt: skip
"""By the names in config.json."""

FUSED_ACTIVATIONS = {
    "none": ("none", "none"),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
}
"""Activations that oneDNN computes inside the matrix product: its name, and its algorithm."""


class Linear(nn.Linear):
    """activation(Wx + b). The weights are kept in fp32 and cast to the precision of `x`."""

    prepared: tuple[object, Callable[[Tensor], Tensor]] | None = None
    """The layer with weights prepared for inference, and what tells that they are still the same."""

    def __init__(self, in_features: int, out_features: int, activation: str = "none") -> None:
        super().__init__(in_features, out_features)
        self.activation = activation

    def reset_parameters(self) -> None:
        """Draw nothing: what a checkpoint lacks is drawn by `Bert.init_weights`, the rest is read."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, inputs) to (T, outputs)."""
        ready = self.prepared  # read once: another thread may release it
        if ready is not None and not torch.is_grad_enabled() and ready[0] == self._identity(x.dtype):
            return ready[1](x)
        return ACTIVATIONS[self.activation](F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype)))

    def prepare_inference(self, dtype: torch.dtype) -> None:
        """Cast the weights once for many calls without gradients. Weights that change meanwhile are noticed, and cast again."""
        weight, bias = self.weight.detach().to(dtype), self.bias.detach().to(dtype)
        activation = ACTIVATIONS[self.activation]
        compute = _packed(weight, bias, self.activation) or (lambda x: activation(F.linear(x, weight, bias)))
        self.prepared = self._identity(dtype), compute

    def _identity(self, dtype: torch.dtype) -> object:
        return dtype, weights_version((self.weight, self.bias))

    def end_inference(self) -> None:
        """Forget what `prepare_inference` made."""
        self.prepared = None


def weights_version(parameters: Iterable[Tensor]) -> object:
    """Return what changes when weights do: where they lie, and how often they were written."""
    return [(parameter.data_ptr(), parameter._version) for parameter in parameters]


class Embedding(nn.Embedding):
    """Vectors by number, not drawn until `Bert.init_weights`."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


def _packed(weight: Tensor, bias: Tensor, activation: str) -> Callable[[Tensor], Tensor] | None:
    """Bring bf16 weights into the order that oneDNN reads them in, which it does at every call otherwise.

    The operators are those that torch.compile puts into its programs. Returns None where they are not to be had.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or activation not in FUSED_ACTIVATIONS:
        return None
    try:
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        linear = torch.ops.mkldnn._linear_pointwise
        linear(weight.new_zeros(1, weight.shape[1]), ordered, bias, *_arguments(activation))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return lambda x: linear(x, ordered, bias, *_arguments(activation))


def _arguments(activation: str) -> tuple[str, list[float], str]:
    name, algorithm = FUSED_ACTIVATIONS[activation]
    return name, [], algorithm
