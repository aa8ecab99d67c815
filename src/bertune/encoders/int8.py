"""BERT's layers with matrix products in int8, for inference on processors: twice the products of bf16 a second.

A product takes activations in uint8 and weights in int8 and sums in int32, in oneDNN; between products, sums and norms are in fp32 and
attention is in bf16, where the processor has units for it. Whatever a batch holds, a text gives the same numbers: what a byte stands
for is settled beforehand, from tokens that the encoder is shown once (`quantize`).

- Into a product: feature j is stored as round((x_j - center_j) / step_j) + 128. Steps differ by feature, so that a few features of
  large range do not take the accuracy of the others; they are moved into the columns of the weights, half of each range to each side
  (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438).
- Weights have a step a row.
- Between the two products of a layer's second half, one step for all neurons, since GELU comes with the first product. The few neurons
  of largest range stay in fp32 there (as in LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339): with 8 of 1,536 the vectors of MiniLM
  are a quarter as far from those of fp32 (1 - cosine).

Letters: `T` packed tokens, `R` rows, `W` width, `N` features of a product's input.
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
"""How much further than seen the values of a feature may go before they are cut off."""
NEURON_RANGE_MARGIN = 1.2
"""The same between the two products of a layer's second half."""
NUM_OUTLIER_NEURONS = 8
"""Neurons of a layer whose values stay in fp32."""
ROUNDING = float(3 << 22)
"""Added to a number from 0 to 255 in fp32 it leaves no place behind the point, and the number in the lowest byte."""

_Range = tuple[Tensor, Tensor]
"""The least and the greatest value of each feature, (N,) each."""


def quantize(encoder: Encoder, calibration: Ragged) -> None:
    """Let an encoder compute its products in int8 from now on, wherever nothing is learnt.

    Weights that change afterwards are noticed; then the layer computes in the precision of its states again.

    Args:
        encoder: one of `bertune.encoders.bert`.
        calibration: tokens from which the ranges of all values are read; the same ones always give the same numbers.

    Raises:
        ConfigError: the encoder is one of transformers' own, or this torch lacks the products.
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
    with torch.no_grad():
        with _observed(observed) as ranges:
            encoder(calibration)
        try:
            for layer in layers:
                layer.int8_forward = weights_version(layer.parameters()), _Int8Layer(layer, ranges)
            encoder(calibration.slice_rows(0, 1))  # so that what is lacking is said now
        except (AttributeError, RuntimeError, TypeError) as error:
            raise ConfigError(
                f"precision int8: torch {torch.__version__} lacks its products ({str(error).splitlines()[0]})"
            ) from None


@contextmanager
def _observed(linears: Sequence[Linear]) -> Iterator[dict[Linear, _Range]]:
    """Keep the range of what comes into some layers while the block runs."""
    ranges: dict[Linear, _Range] = {}

    def look(linear: Linear, given: tuple[Tensor]) -> None:
        low, high = given[0].float().aminmax(dim=0)
        before = ranges.get(linear, (low, high))
        ranges[linear] = torch.minimum(before[0], low), torch.maximum(before[1], high)

    hooks = [linear.register_forward_pre_hook(look) for linear in linears]
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class _Code:
    """What a byte stands for: (byte - zero) * scale."""

    scale: float
    zero: int


class _Quantizer:
    """Features to bytes, with a step for each feature that the weights behind it make up for.

    Attributes:
        code: what bytes stand for, in units of `factor`.
        factor: (N,), on the columns of the weights.
        center: (N,), the value of the byte 128.
    """

    def __init__(self, seen: _Range, weights: Sequence[Tensor]) -> None:
        low, high = seen
        reach = (high - low) / 2 * RANGE_MARGIN
        reach = reach.clamp(
            min=0.05 * float(reach.median()) + 1e-6
        )  # what never moved in the sample may move yet
        heaviest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0).clamp(min=1e-6)
        self.factor = (reach / heaviest).sqrt()
        self.code = _Code(float((reach / self.factor).max()) / 127, 128)
        steps = self.factor * self.code.scale
        places = (
            (low + high) / 2 / steps
        ).round()  # whole steps, so that one rounding, at the end, is all there is
        self.center = places * steps
        self._per_step = 1 / steps
        self._shift = ROUNDING + 128 - places

    def __call__(self, x: Tensor) -> Tensor:
        """Map (T, N) to bytes."""
        rounded = torch.addcmul(self._shift, x.float(), self._per_step)
        return rounded.clamp_(ROUNDING, ROUNDING + 255).view(torch.int32).to(torch.uint8)


class _Product:
    """activation(Wx + b), bytes in.

    Args:
        weight: (M, N).
        bias: (M,).
        given: what its input's bytes stand for.
        dtype: of what comes out.
        activation: one that oneDNN computes inside the product.
        code: what bytes stand for that come out, where `dtype` is uint8.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        given: _Code,
        dtype: torch.dtype,
        activation: str = "none",
        code: _Code | None = None,
    ) -> None:
        steps = (weight.abs().amax(1) / 127).clamp(min=1e-12)
        whole = (weight / steps[:, None]).round().to(torch.int8)
        ordered = torch.ops.onednn.qlinear_prepack(whole, None)
        name, algorithm = FUSED_ACTIVATIONS[activation]
        made = (1.0, 0) if code is None else (code.scale, code.zero)
        self._arguments = (
            given.scale,
            given.zero,
            ordered,
            steps,
            torch.zeros(len(steps), dtype=torch.int64),
            bias,
            *made,
        )
        self._ending: tuple[Any, ...] = (dtype, name, [], algorithm or "none")

    @classmethod
    def after(
        cls,
        quantizer: _Quantizer,
        weight: Tensor,
        bias: Tensor,
        dtype: torch.dtype,
        activation: str = "none",
        code: _Code | None = None,
    ) -> _Product:
        """Make the product whose input comes from a quantizer."""
        return cls(
            weight * quantizer.factor,
            bias + weight @ quantizer.center,
            quantizer.code,
            dtype,
            activation,
            code,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Map bytes (T, N) to (T, M)."""
        return torch.ops.onednn.qlinear_pointwise(x, *self._arguments, *self._ending)  # type: ignore[no-any-return]


class _Int8Layer:
    """A layer of BERT; see `bertune.encoders.bert.Layer` for what it computes."""

    def __init__(self, layer: Layer, ranges: dict[Linear, _Range]) -> None:
        self._heads, self._mix_norm, self._shrink_norm = (
            layer.config.num_heads,
            layer.attention_norm,
            layer.output_norm,
        )
        dtype = torch.bfloat16 if has_fast_bf16(torch.device("cpu")) else torch.float32
        three = (layer.query, layer.key, layer.value)
        self._to_attention = _Quantizer(ranges[layer.query], [_parameters(linear)[0] for linear in three])
        self._query, self._key, self._value = (
            _Product.after(self._to_attention, *_parameters(linear), dtype) for linear in three
        )
        self._to_mix = _Quantizer(ranges[layer.attention_output], [_parameters(layer.attention_output)[0]])
        self._mix = _Product.after(self._to_mix, *_parameters(layer.attention_output), torch.float32)
        self._network = _network(layer, ranges)

    def __call__(self, x: Tensor, plan: AttentionPlan, query_positions: Tensor | None = None) -> Tensor:
        """Map (T, W) to (T, W), or to (R, W) of the places `query_positions`; all in fp32."""
        given = self._to_attention(x)
        queries, x = (given, x) if query_positions is None else (given[query_positions], x[query_positions])
        query, key, value = (
            self._by_head(product(of))
            for product, of in ((self._query, queries), (self._key, given), (self._value, given))
        )
        mixed = self._mix(self._to_mix(ragged_attention(query, key, value, plan).flatten(1)))
        x = _norm(mixed.add_(x), self._mix_norm)
        return _norm(self._network(x).add_(x), self._shrink_norm)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(len(x), self._heads, -1)


def _network(layer: Layer, ranges: dict[Linear, _Range]) -> Callable[[Tensor], Tensor]:
    """Return a layer's second half up to the sum, (T, W) to (T, W)."""
    weight, bias = _parameters(layer.intermediate)
    to_grow = _Quantizer(ranges[layer.intermediate], [weight])
    if layer.intermediate.activation not in FUSED_ACTIVATIONS:
        return _plain_network(layer, to_grow, ranges[layer.output])
    low, high = ranges[layer.output]
    special = high.argsort(descending=True)[: min(NUM_OUTLIER_NEURONS, len(high) // 8)]
    others = torch.ones_like(high, dtype=torch.bool)
    others[special] = False
    between = _code_of(
        min(float(low.min()), 0.0) * NEURON_RANGE_MARGIN, float(high[others].max()) * NEURON_RANGE_MARGIN
    )
    grow = _Product.after(to_grow, weight, bias, torch.uint8, layer.intermediate.activation, between)
    grow_special = _Product.after(to_grow, weight[special], bias[special], torch.float32)
    weight, bias = _parameters(layer.output)
    shrink = _Product(weight * others, bias, between, torch.float32)  # without the special neurons
    shrink_special = weight[:, special].T.contiguous()
    activation = ACTIVATIONS[layer.intermediate.activation]

    def compute(x: Tensor) -> Tensor:
        given = to_grow(x)
        return shrink(grow(given)).addmm_(activation(grow_special(given)), shrink_special)

    return compute


def _code_of(least: float, most: float) -> _Code:
    """Spread bytes from the least value, which is at most 0, to the greatest."""
    scale = max(most - least, 1e-6) / 255
    return _Code(scale, min(max(round(-least / scale), 0), 255))


def _plain_network(layer: Layer, to_grow: _Quantizer, seen: _Range) -> Callable[[Tensor], Tensor]:
    """Return the same where the activation is computed by itself."""
    grow = _Product.after(to_grow, *_parameters(layer.intermediate), torch.float32)
    to_shrink = _Quantizer(seen, [_parameters(layer.output)[0]])
    shrink = _Product.after(to_shrink, *_parameters(layer.output), torch.float32)
    activation = ACTIVATIONS[layer.intermediate.activation]
    return lambda x: shrink(to_shrink(activation(grow(to_grow(x)))))


def _parameters(linear: Linear) -> tuple[Tensor, Tensor]:
    return linear.weight.detach().float(), linear.bias.detach().float()


def _norm(x: Tensor, by: torch.nn.LayerNorm) -> Tensor:
    return layer_norm(x, by.weight, by.bias, by.eps)
