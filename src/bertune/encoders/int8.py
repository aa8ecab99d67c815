"""BERT's layers with matrix products in int8, for inference on CPUs: twice as fast as products in bf16.

A product takes activations in uint8 and weights in int8 and sums in int32, in oneDNN. Between products, sums
and norms are in fp32, and attention is in bf16 where the CPU has units for it. A text gives the same numbers
in every batch, since the quantization is fixed beforehand, from tokens that the encoder sees once
(`quantize`).

- Input of a product: feature j is stored as round((x_j - center_j) / step_j) + 128. Steps differ by
  feature, so that a few features of large range do not reduce the accuracy of the others. The weights take
  half of each range into their columns (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438).
- Weights have one step per row.
- Between the two products of the feed-forward network there is one step for all neurons, since GELU is part
  of the first product. The few neurons of the largest range stay in fp32 there (as in LLM.int8(), Dettmers
  et al. 2022, arXiv 2208.07339): with 8 of 1,536 neurons in fp32, the distance of MiniLM's vectors from those
  of fp32 (1 - cosine) is a quarter of the distance without.

Letters: `T` packed tokens, `R` rows, `W` hidden size, `N` features of a product's input, `M` of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bertune.encoders.bert import Bert, Layer
from bertune.errors import ConfigError
from bertune.kernels.attention import AttentionPlan, ragged_attention
from bertune.kernels.dropout import layer_norm
from bertune.kernels.linear import ACTIVATIONS, FUSED_ACTIVATIONS, Linear, weights_version
from bertune.kernels.precision import has_fast_bf16
from bertune.types import Encoder, Ragged

RANGE_MARGIN = 1.3
"""How far the values of a feature may go, in observed ranges, before they are clipped."""
NEURON_RANGE_MARGIN = 1.2
"""How far the values of a neuron between the two products of the feed-forward network may go, likewise."""
NUM_OUTLIER_NEURONS = 8
"""Neurons of a layer whose values stay in fp32."""
ROUNDING = float(3 << 22)
"""Added to a number from 0 to 255 in fp32, it rounds the number and leaves it in the lowest byte."""

_Range = tuple[Tensor, Tensor]
"""The least and the greatest value of each feature, (N,) each."""


def quantize(encoder: Encoder, calibration: Ragged) -> None:
    """Make an encoder compute its products in int8 from now on, where no gradient is needed.

    When the weights of a layer change afterwards, the layer computes in the precision of its states again.

    Args:
        encoder: one of `bertune.encoders.bert`.
        calibration: tokens from which the ranges of all values are taken; the same ones give the same result.

    Raises:
        ConfigError: the encoder is one of transformers, or this torch lacks the products.
    """
    if not isinstance(encoder, Bert):
        raise ConfigError(
            f"precision int8: not for the architecture {encoder.model_type}; use auto, fp32 or bf16"
        )
    layers = [layer for layer in encoder.layers if isinstance(layer, Layer)]
    observed = [
        linear
        for layer in layers
        for linear in (layer.query, layer.attention_output, layer.intermediate, layer.output)
    ]
    for layer in layers:
        layer.int8_forward = None  # or the layer would use it, and nothing would be observed
    with torch.no_grad():
        with _observed(observed) as ranges:
            encoder(calibration)
        try:
            for layer in layers:
                layer.int8_forward = weights_version(layer.parameters()), _Int8Layer(layer, ranges)
            encoder(calibration.slice_rows(0, 1))  # so that a missing product is reported now
        except (AttributeError, RuntimeError, TypeError) as error:
            raise ConfigError(
                f"precision int8: torch {torch.__version__} lacks its products ({str(error).splitlines()[0]})"
            ) from None


@contextmanager
def _observed(linears: Sequence[Linear]) -> Iterator[dict[Linear, _Range]]:
    """Record the range of the inputs of some layers while the block runs."""
    ranges: dict[Linear, _Range] = {}

    def observe(linear: Linear, inputs: tuple[Tensor]) -> None:
        low, high = inputs[0].float().aminmax(dim=0)
        before = ranges.get(linear, (low, high))
        ranges[linear] = torch.minimum(before[0], low), torch.maximum(before[1], high)

    hooks = [linear.register_forward_pre_hook(observe) for linear in linears]
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class _Code:
    """The value of a byte: (byte - zero) * scale."""

    scale: float
    zero: int


class _Quantizer:
    """Features to bytes, with a step for each feature that the columns of the next weights undo.

    Attributes:
        code: the value of bytes, in units of `factor`.
        factor: (N,), on the columns of the weights.
        center: (N,), the value of the byte 128.
    """

    def __init__(self, observed: _Range, weights: Sequence[Tensor]) -> None:
        low, high = observed
        half_range = (high - low) / 2 * RANGE_MARGIN
        # a feature that is constant in the sample may vary elsewhere
        half_range = half_range.clamp(min=0.05 * float(half_range.median()) + 1e-6)
        largest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0).clamp(min=1e-6)
        self.factor = (half_range / largest).sqrt()
        self.code = _Code(float((half_range / self.factor).max()) / 127, 128)
        steps = self.factor * self.code.scale
        shifts = ((low + high) / 2 / steps).round()  # whole steps, so that values are rounded only once
        self.center = shifts * steps
        self._per_step = 1 / steps
        self._shift = ROUNDING + 128 - shifts

    def __call__(self, x: Tensor) -> Tensor:
        """Map (T, N) to bytes."""
        rounded = torch.addcmul(self._shift, x.float(), self._per_step)
        return rounded.clamp_(ROUNDING, ROUNDING + 255).view(torch.int32).to(torch.uint8)


class _Product:
    """activation(Wx + b), bytes in.

    Args:
        weight: (M, N).
        bias: (M,).
        input_code: the value of the input's bytes.
        dtype: of the output.
        activation: one that oneDNN computes inside the product.
        output_code: the value of the output's bytes, where `dtype` is uint8.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        input_code: _Code,
        dtype: torch.dtype,
        activation: str = "none",
        output_code: _Code | None = None,
    ) -> None:
        steps = (weight.abs().amax(1) / 127).clamp(min=1e-12)
        quantized = (weight / steps[:, None]).round().to(torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(quantized, None)
        name, algorithm = FUSED_ACTIVATIONS[activation]
        output = (1.0, 0) if output_code is None else (output_code.scale, output_code.zero)
        zeros = torch.zeros(len(steps), dtype=torch.int64)
        self._arguments = (input_code.scale, input_code.zero, packed, steps, zeros, bias, *output)
        self._post_op: tuple[Any, ...] = (dtype, name, [], algorithm or "none")

    @classmethod
    def after(
        cls,
        quantizer: _Quantizer,
        weight: Tensor,
        bias: Tensor,
        dtype: torch.dtype,
        activation: str = "none",
        output_code: _Code | None = None,
    ) -> _Product:
        """Return the product whose input comes from a quantizer."""
        return cls(
            weight * quantizer.factor,
            bias + weight @ quantizer.center,
            quantizer.code,
            dtype,
            activation,
            output_code,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Map bytes (T, N) to (T, M)."""
        output: Tensor = torch.ops.onednn.qlinear_pointwise(x, *self._arguments, *self._post_op)
        return output


class _Int8Layer:
    """A layer of BERT; see `bertune.encoders.bert.Layer` for what it computes."""

    def __init__(self, layer: Layer, ranges: dict[Linear, _Range]) -> None:
        self._num_heads = layer.config.num_heads
        self._attention_norm, self._output_norm = layer.attention_norm, layer.output_norm
        dtype = torch.bfloat16 if has_fast_bf16(torch.device("cpu")) else torch.float32
        projections = (layer.query, layer.key, layer.value)
        self._quantize_states = _Quantizer(
            ranges[layer.query], [_parameters(linear)[0] for linear in projections]
        )
        self._query, self._key, self._value = (
            _Product.after(self._quantize_states, *_parameters(linear), dtype) for linear in projections
        )
        weight, bias = _parameters(layer.attention_output)
        self._quantize_attended = _Quantizer(ranges[layer.attention_output], [weight])
        self._attention_output = _Product.after(self._quantize_attended, weight, bias, torch.float32)
        self._feed_forward = _make_feed_forward(layer, ranges)

    def __call__(self, x: Tensor, plan: AttentionPlan, query_positions: Tensor | None = None) -> Tensor:
        """Map (T, W) to (T, W), or to (R, W) where `query_positions` names R tokens; all in fp32."""
        states = self._quantize_states(x)
        queries, x = (states, x) if query_positions is None else (states[query_positions], x[query_positions])
        query, key, value = (
            self._split_heads(product(inputs))
            for product, inputs in ((self._query, queries), (self._key, states), (self._value, states))
        )
        attended = self._quantize_attended(ragged_attention(query, key, value, plan).flatten(1))
        x = _norm(self._attention_output(attended).add_(x), self._attention_norm)
        return _norm(self._feed_forward(x).add_(x), self._output_norm)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.view(len(x), self._num_heads, -1)


def _make_feed_forward(layer: Layer, ranges: dict[Linear, _Range]) -> Callable[[Tensor], Tensor]:
    """Return a layer's feed-forward network without the residual sum, (T, W) to (T, W)."""
    weight, bias = _parameters(layer.intermediate)
    quantize_states = _Quantizer(ranges[layer.intermediate], [weight])
    if layer.intermediate.activation not in FUSED_ACTIVATIONS:
        return _make_unfused_feed_forward(layer, quantize_states, ranges[layer.output])
    low, high = ranges[layer.output]
    outliers = high.argsort(descending=True)[: min(NUM_OUTLIER_NEURONS, len(high) // 8)]
    is_regular = torch.ones_like(high, dtype=torch.bool)
    is_regular[outliers] = False
    code = _spread_code(
        min(float(low.min()), 0.0) * NEURON_RANGE_MARGIN, float(high[is_regular].max()) * NEURON_RANGE_MARGIN
    )
    activation = ACTIVATIONS[layer.intermediate.activation]
    intermediate = _Product.after(
        quantize_states, weight, bias, torch.uint8, layer.intermediate.activation, code
    )
    outlier_intermediate = _Product.after(quantize_states, weight[outliers], bias[outliers], torch.float32)
    weight, bias = _parameters(layer.output)
    output = _Product(weight * is_regular, bias, code, torch.float32)  # without the outlier neurons
    outlier_output = weight[:, outliers].T.contiguous()

    def compute(x: Tensor) -> Tensor:
        states = quantize_states(x)
        outlier_neurons = activation(outlier_intermediate(states))
        return output(intermediate(states)).addmm_(outlier_neurons, outlier_output)

    return compute


def _spread_code(low: float, high: float) -> _Code:
    """Return bytes from the lowest value, which is at most 0, to the highest."""
    scale = max(high - low, 1e-6) / 255
    return _Code(scale, min(max(round(-low / scale), 0), 255))


def _make_unfused_feed_forward(
    layer: Layer, quantize_states: _Quantizer, observed: _Range
) -> Callable[[Tensor], Tensor]:
    """Return the feed-forward network where the activation is not part of the first product."""
    intermediate = _Product.after(quantize_states, *_parameters(layer.intermediate), torch.float32)
    weight, bias = _parameters(layer.output)
    quantize_neurons = _Quantizer(observed, [weight])
    output = _Product.after(quantize_neurons, weight, bias, torch.float32)
    activation = ACTIVATIONS[layer.intermediate.activation]
    return lambda x: output(quantize_neurons(activation(intermediate(quantize_states(x)))))


def _parameters(linear: Linear) -> tuple[Tensor, Tensor]:
    return linear.weight.detach().float(), linear.bias.detach().float()


def _norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    return layer_norm(x, norm.weight, norm.bias, norm.eps)
