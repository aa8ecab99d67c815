"""Attention over ragged rows: each row attends to itself alone.

Buckets of rows of similar length keep padding small although the rows of a batch are drawn at random. Padding
exists in this file alone.

Letters: `T` packed tokens, `R` rows of the batch, `B` rows of a bucket, `S` length of a bucket, `Q` queries
of each of its rows, `H` heads, `D` width of a head.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bertune.kernels.dropout import draw_keep_mask, rate_to_bytes

BUCKET_SIZE = 16
"""Rows whose lengths round up to the same multiple of this share a bucket of that length. On processors
torch's softmax takes 2 to 5 times as long a value where the length of a row is not a multiple of its vector:
16 numbers in fp32, 32 in bf16 (see `_softmax`)."""
BF16_VECTOR = 32
"""Numbers in a vector of torch's bf16 softmax on processors."""


@dataclass(frozen=True)
class Bucket:
    """Rows of similar length, padded to one length S. A pad is a copy of its row's last token."""

    key_index: Tensor  # (B * H * S) position of each key and value among (T * H)
    query_index: Tensor  # (B * H * Q) position of each query among (T * H) or (R * H)
    query_padding: Tensor | None  # positions of pads among (B * H * Q); None without pads
    key_padding: Tensor | None  # (B, S) True where a key is a pad; None without pads
    num_rows: int  # B
    length: int  # S
    query_slice: slice  # this bucket among the queries of all buckets, pads and heads included
    key_slice: slice  # this bucket among the keys of all buckets, pads and heads included


@dataclass(frozen=True)
class BucketLayout:
    """A batch in buckets, and how results return to packed order."""

    buckets: tuple[Bucket, ...]
    query_order: Tensor  # (T * H) or (R * H) position of each query among those of all buckets
    key_order: Tensor  # (T * H) position of each key among those of all buckets
    num_queries: int  # of all buckets, pads and heads included
    num_keys: int  # of all buckets, pads and heads included


class AttentionPlan:
    """The row lengths of a batch and the buckets they give, made once for all layers.

    Args:
        lengths: tokens of each row, each at least 1.
        device: where the attention runs.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.device = device
        self.row_starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._layouts: dict[tuple[int, bool], BucketLayout] = {}

    @property
    def num_tokens(self) -> int:
        """Return T."""
        return int(self.row_starts[-1])

    @property
    def max_seqlen(self) -> int:
        """Return the length of the longest row."""
        return int(self.lengths.max())

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """Return where rows begin and end, (R + 1) of int32, as CUDA kernels take them."""
        return torch.from_numpy(self.row_starts.astype(np.int32)).to(
            self.device, non_blocking=self.device.type == "cuda"
        )

    def layout(self, heads: int, first_only: bool) -> BucketLayout:
        """Return the buckets for a number of heads; with `first_only` only first tokens are queries."""
        key = (heads, first_only)
        if key not in self._layouts:
            self._layouts[key] = _build_layout(self.lengths, self.row_starts, heads, first_only, self.device)
        return self._layouts[key]


def _build_layout(
    lengths: Any, row_starts: Any, heads: int, first_only: bool, device: torch.device
) -> BucketLayout:
    rows_by_length: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths.tolist()):
        rows_by_length[-(-length // BUCKET_SIZE) * BUCKET_SIZE].append(row)
    query_order = np.empty((len(lengths) if first_only else row_starts[-1], heads), np.int64)
    key_order = np.empty((row_starts[-1], heads), np.int64)
    head = np.arange(heads, dtype=np.int64)[:, None]

    def to_device(array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=device.type == "cuda")

    buckets, query_start, key_start = [], 0, 0
    for length, rows in sorted(rows_by_length.items()):
        sizes = lengths[rows]
        is_token = np.arange(length) < sizes[:, None]  # (B, S)
        tokens = row_starts[rows][:, None] + np.minimum(np.arange(length, dtype=np.int64), sizes[:, None] - 1)
        keys = tokens[:, None, :] * heads + head  # (B, H, S)
        slots = np.arange(keys.size, dtype=np.int64).reshape(keys.shape)
        key_order[tokens[is_token]] = key_start + slots.transpose(0, 2, 1)[is_token]
        has_pads = not is_token.all()
        if first_only:
            queries = np.asarray(rows, np.int64)[:, None] * heads + head[:, 0]  # (B, H)
            query_slots = np.arange(queries.size, dtype=np.int64).reshape(queries.shape)
            query_order[rows] = query_start + query_slots
        else:
            queries = keys
            query_order[tokens[is_token]] = query_start + slots.transpose(0, 2, 1)[is_token]
        query_padding, key_padding = None, None
        if has_pads and not first_only:
            query_padding = to_device(slots[np.broadcast_to(~is_token[:, None, :], slots.shape)])
        if has_pads:
            key_padding = to_device(~is_token)
        query_slice = slice(query_start, query_start + queries.size)
        key_slice = slice(key_start, key_start + keys.size)
        key_index = to_device(keys.ravel())
        query_index = to_device(queries.ravel()) if first_only else key_index
        buckets.append(
            Bucket(
                key_index, query_index, query_padding, key_padding, len(rows), length, query_slice, key_slice
            )
        )
        query_start, key_start = query_slice.stop, key_slice.stop
    return BucketLayout(
        tuple(buckets), to_device(query_order.ravel()), to_device(key_order.ravel()), query_start, key_start
    )


def ragged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    dropout: float = 0.0,
    scale: float | None = None,
    fast_dropout: bool = True,
) -> Tensor:
    """Compute softmax(QK^T * scale) V inside each row.

    Args:
        query: (T, H, D), or (R, H, D) for the first token of each row alone.
        key: (T, H, D).
        value: (T, H, D).
        plan: the rows of this batch.
        dropout: fraction of attention probabilities set to 0.
        scale: 1 / sqrt(D) if None.
        fast_dropout: on a processor, round `dropout` to 1/256; see `bertune.kernels.dropout`.

    Returns:
        One vector a query: (T, H, D) or (R, H, D).
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    varlen = None if dropout else _varlen(query)
    if varlen is not None:
        first_only = len(query) != plan.num_tokens
        cu_seqlens_q = (
            torch.arange(len(query) + 1, dtype=torch.int32, device=query.device)
            if first_only
            else plan.cu_seqlens
        )
        max_q = 1 if first_only else plan.max_seqlen
        output: Tensor = varlen(
            query, key, value, cu_seqlens_q, plan.cu_seqlens, max_q, plan.max_seqlen, scale=scale
        )
        return output
    layout = plan.layout(query.shape[1], first_only=len(query) != plan.num_tokens)
    needs_grad = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if query.device.type != "cpu" or (dropout and not fast_dropout):
        return _with_sdpa(query, key, value, layout, dropout, scale)
    if needs_grad:
        arguments = query, key, value, layout, dropout, scale
        attended: Tensor = _Attention.apply(*arguments)  # type: ignore[no-untyped-call]
        return attended
    # With dropout the draws must be those of `_Attention`: gradient caching repeats a pass without gradients
    # with them. In bf16 these products are 1.2 to 1.8 times as fast as torch's attention, which is faster in
    # fp32.
    if dropout or query.dtype == torch.bfloat16:
        return _with_products(query, key, value, layout, dropout, scale, None)
    return _with_sdpa(query, key, value, layout, dropout, scale)


def _varlen(query: Tensor) -> Any:
    """Return torch's flash attention for ragged rows on CUDA; None where torch or the GPU lacks it."""
    if (
        query.device.type != "cuda"
        or query.dtype not in (torch.bfloat16, torch.float16)
        or query.shape[-1] % 8
        or query.shape[-1] > 256
    ):
        return None
    if torch.version.hip or torch.cuda.get_device_capability(query.device) < (8, 0):
        return None
    return _torch_varlen()


@cache
def _torch_varlen() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    accepts_scale = "scale" in inspect.signature(varlen_attn).parameters  # not in 2.10
    return varlen_attn if accepts_scale and torch.backends.cuda.is_flash_attention_available() else None


def _with_sdpa(
    query: Tensor, key: Tensor, value: Tensor, layout: BucketLayout, dropout: float, scale: float
) -> Tensor:
    heads, width = query.shape[1:]
    flat = [x.reshape(-1, width) for x in (query, key, value)]
    outputs = []
    for bucket in layout.buckets:
        shape = (bucket.num_rows, heads, -1, width)
        q, k, v = (
            x.index_select(0, i).view(shape)
            for x, i in zip(flat, (bucket.query_index, bucket.key_index, bucket.key_index), strict=True)
        )
        mask = None if bucket.key_padding is None else ~bucket.key_padding[:, None, None, :]
        outputs.append(
            scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale).reshape(
                -1, width
            )
        )
    return torch.cat(outputs).index_select(0, layout.query_order).view(query.shape)


def _with_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: BucketLayout,
    dropout: float,
    scale: float,
    saved: list[Tensor] | None,
) -> Tensor:
    """Return attention from batched matrix products; append the tensors of the backward pass to `saved`."""
    heads, width = query.shape[1:]
    flat = [x.reshape(-1, width) for x in (query, key, value)]
    outputs = query.new_empty(layout.num_queries, width)
    for bucket in layout.buckets:
        shape = (bucket.num_rows * heads, -1, width)
        q, k, v = (
            x.index_select(0, i).view(shape)
            for x, i in zip(flat, (bucket.query_index, bucket.key_index, bucket.key_index), strict=True)
        )
        bias = q.new_zeros(bucket.num_rows, 1, bucket.length)
        if bucket.key_padding is not None:
            bias.masked_fill_(bucket.key_padding[:, None, :], -torch.inf)
        bias = bias.repeat_interleave(heads, 0)  # (B * H, 1, S)
        probs = _softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale))  # (B * H, Q, S)
        keep_mask = draw_keep_mask(probs.shape, dropout) if dropout else None
        if saved is not None:
            saved += [q, k, v, probs] if keep_mask is None else [q, k, v, probs, keep_mask]
        if keep_mask is not None:
            probs, v = probs * keep_mask, v * rate_to_bytes(dropout)[1]
        torch.bmm(probs, v, out=outputs[bucket.query_slice].view(shape))
    return outputs.index_select(0, layout.query_order).view(query.shape)


class _Attention(torch.autograd.Function):
    """Attention from matrix products, forward and backward: both use the matrix units of a processor.

    torch's attention takes a slow path on processors when it drops probabilities, and its backward pass never
    uses these units (docs/speed.md). Dropout draws from `bertune.kernels.dropout`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: BucketLayout,
        dropout: float,
        scale: float,
    ) -> Tensor:
        saved: list[Tensor] = []
        output = _with_products(query, key, value, layout, dropout, scale, saved)
        ctx.save_for_backward(*saved)
        ctx.layout, ctx.scale, ctx.shapes = layout, scale, (query.shape, key.shape)
        ctx.gain = rate_to_bytes(dropout)[1] if dropout else None
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        layout: BucketLayout = ctx.layout
        query_shape, key_shape = ctx.shapes
        width = grad.shape[-1]
        flat = grad.reshape(-1, width)
        d_query = grad.new_empty(layout.num_queries, width)
        d_key, d_value = (grad.new_empty(layout.num_keys, width) for _ in range(2))
        saved = iter(ctx.saved_tensors)
        for bucket in layout.buckets:
            q, k, v, probs = (next(saved) for _ in range(4))
            keep_mask = next(saved) if ctx.gain else None
            d_out = flat.index_select(0, bucket.query_index)
            if bucket.query_padding is not None:
                d_out.index_fill_(0, bucket.query_padding, 0)  # the output of a pad is not read
            d_out = (d_out * ctx.gain if keep_mask is not None else d_out).view(q.shape)
            kept_probs = probs if keep_mask is None else probs * keep_mask
            torch.bmm(kept_probs.transpose(1, 2), d_out, out=d_value[bucket.key_slice].view(k.shape))
            d_probs = torch.bmm(d_out, v.transpose(1, 2))
            if keep_mask is not None:
                d_probs.mul_(keep_mask)
            d_scores = _softmax_gradient(d_probs, probs)
            _product(d_scores, k, ctx.scale, d_query[bucket.query_slice].view(q.shape))
            _product(d_scores.transpose(1, 2), q, ctx.scale, d_key[bucket.key_slice].view(k.shape))
        return (
            d_query.index_select(0, layout.query_order).view(query_shape),
            d_key.index_select(0, layout.key_order).view(key_shape),
            d_value.index_select(0, layout.key_order).view(key_shape),
            None, None, None,
        )  # fmt: skip


def _softmax(scores: Tensor) -> Tensor:
    """Return softmax over the last dimension.

    It is computed in fp32 where a row of bf16 is not a multiple of torch's vector: up to 7 times as fast.
    """
    if _fits_vector(scores):
        return scores.softmax(-1)
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)


def _softmax_gradient(gradient: Tensor, probs: Tensor) -> Tensor:
    """Return the gradient of the scores from the gradient of `probs`, their `_softmax`."""
    if _fits_vector(probs):
        return torch._softmax_backward_data(gradient, probs, -1, probs.dtype)
    return torch._softmax_backward_data(gradient.float(), probs.float(), -1, torch.float32).to(probs.dtype)


def _fits_vector(x: Tensor) -> bool:
    return x.dtype != torch.bfloat16 or x.shape[-1] % BF16_VECTOR == 0


def _product(left: Tensor, right: Tensor, factor: float, out: Tensor) -> None:
    """Write factor * left @ right into `out`."""
    torch.baddbmm(out, left, right, beta=0, alpha=factor, out=out)
