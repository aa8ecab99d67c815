"""Ragged attention is softmax(QK^T)V inside each row, and a row does not affect the others."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as some

from bertune.kernels import attention
from bertune.kernels.attention import BUCKET_SIZE, AttentionPlan, ragged_attention
from bertune.kernels.dropout import DROPOUT_GENERATOR, draw_keep_mask, rate_to_bytes

CPU = torch.device("cpu")
HEADS, SIZE = 3, 8
SCALE = 1 / math.sqrt(SIZE)
MIXED = [1, 100, 32, 7, 33, 64, 65, 2, 96, 97, 1, 31, 50, 7]
LENGTHS = {
    "mixed": MIXED,
    "one row": [40],
    "one token": [1],
    "single tokens": [1] * 5,
    "equal": [32] * 4,
    "one bucket": [3, 9, 5, 1],
}
WITH_GRAD = {
    "with gradients": True,
    "without": False,
}  # matrix products forward and backward, or the faster forward pass
FIRST_ONLY = {"all": False, "first": True}
lengths_of_rows = some.lists(some.integers(1, 200), min_size=1, max_size=7)


def inputs(
    lengths: list[int], dtype: torch.dtype = torch.float64, seed: int = 0, first: bool = False
) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(sum(lengths), HEADS, SIZE, generator=random, dtype=dtype) for _ in range(3)]
    return [tensors[0][starts(lengths)] if first else tensors[0], *tensors[1:]]


def starts(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)][:-1])


def attend(with_grad: bool, tensors, lengths, *rest, **more) -> torch.Tensor:
    """Attend with or without gradients, and check which implementation ran."""
    calls = []
    original = attention._Attention.forward

    def forward(*args):
        calls.append(True)
        return original(*args)

    attention._Attention.forward = staticmethod(forward)
    try:
        tensors = [x.detach().requires_grad_(with_grad) for x in tensors]
        output = ragged_attention(*tensors, AttentionPlan(lengths, CPU), *rest, **more).detach()
    finally:
        attention._Attention.forward = staticmethod(original)
    assert bool(calls) == with_grad
    return output


def reference_attention(query, key, value, lengths, scale=SCALE) -> torch.Tensor:
    """A loop over rows, heads and queries."""
    rows = []
    query_lengths = lengths if len(query) == sum(lengths) else [1] * len(lengths)
    for q, k, v in zip(query.split(query_lengths), key.split(lengths), value.split(lengths), strict=True):
        heads = [
            torch.stack([torch.softmax(k[:, h] @ one * scale, 0) @ v[:, h] for one in q[:, h]])
            for h in range(HEADS)
        ]
        rows.append(torch.stack(heads, 1))
    return torch.cat(rows)


def by_rows(query, key, value, lengths, masks=None, gain=1.0) -> torch.Tensor:
    """A loop over rows; the mask of a row is (H, Q, S)."""
    query_lengths = lengths if len(query) == sum(lengths) else [1] * len(lengths)
    rows = []
    for row, (q, k, v) in enumerate(
        zip(query.split(query_lengths), key.split(lengths), value.split(lengths), strict=True)
    ):
        probs = torch.softmax(torch.einsum("qhd,khd->hqk", q, k) * SCALE, -1)
        if masks is not None:
            probs = probs * masks[row] * gain
        rows.append(torch.einsum("hqk,khd->qhd", probs, v))
    return torch.cat(rows)


def both_with_gradients(compute, reference, tensors, seed=1):
    """Outputs of both functions, and the gradients of a weighted sum of each."""
    results = []
    for function in (compute, reference):
        leaves = [x.detach().clone().requires_grad_() for x in tensors]
        output = function(*leaves)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=output.dtype)
        results.append((output.detach(), *torch.autograd.grad((output * weights).sum(), leaves)))
    return list(zip(("output", "query", "key", "value"), *results, strict=True))


@pytest.mark.parametrize("with_grad", WITH_GRAD.values(), ids=WITH_GRAD)
@pytest.mark.parametrize("first", FIRST_ONLY.values(), ids=FIRST_ONLY)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_forward(lengths, first, with_grad):
    tensors = inputs(lengths, first=first)
    torch.testing.assert_close(
        attend(with_grad, tensors, lengths), reference_attention(*tensors, lengths), atol=1e-12, rtol=1e-12
    )


@pytest.mark.parametrize("first", FIRST_ONLY.values(), ids=FIRST_ONLY)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_gradients(lengths, first):
    tensors = inputs(lengths, first=first)
    for name, actual, reference in both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(lengths, CPU)),
        lambda *x: reference_attention(*x, lengths),
        tensors,
    ):
        torch.testing.assert_close(
            actual, reference, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@settings(deadline=None, max_examples=40)
@each(lengths_of_rows, some.booleans(), some.integers(0, 2**31))
def test_any_lengths_forward_and_backward(lengths, first, seed):
    tensors = inputs(lengths, seed=seed, first=first)
    for name, actual, reference in both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(lengths, CPU)), lambda *x: by_rows(*x, lengths), tensors
    ):
        torch.testing.assert_close(
            actual, reference, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@settings(deadline=None, max_examples=40)
@each(lengths_of_rows, some.booleans())
def test_both_ways_give_the_same(lengths, first):
    tensors = inputs(lengths, first=first)
    torch.testing.assert_close(
        attend(True, tensors, lengths), attend(False, tensors, lengths), atol=1e-12, rtol=1e-12
    )


@pytest.mark.parametrize("first", FIRST_ONLY.values(), ids=FIRST_ONLY)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_numerical_gradients(first, rate):
    lengths = [3, 1, 33]
    random = torch.Generator().manual_seed(0)
    tensors = [torch.randn(sum(lengths), 2, 3, generator=random, dtype=torch.float64) for _ in range(3)]
    tensors[0] = tensors[0][starts(lengths)] if first else tensors[0]

    def compute(*x):
        DROPOUT_GENERATOR.seed(5)
        return ragged_attention(*x, AttentionPlan(lengths, CPU), rate)

    assert torch.autograd.gradcheck(compute, [x.requires_grad_() for x in tensors], fast_mode=True)


@pytest.mark.parametrize(
    "grad_mask",
    [[True, False, False], [False, True, False], [False, False, True]],
    ids=["query", "key", "value"],
)
def test_a_gradient_of_one_input_alone(grad_mask):
    lengths = LENGTHS["one bucket"]
    gradients = []
    for compute in (
        lambda *x: ragged_attention(*x, AttentionPlan(lengths, CPU)),
        lambda *x: by_rows(*x, lengths),
    ):
        tensors = [x.requires_grad_(needed) for x, needed in zip(inputs(lengths), grad_mask, strict=True)]
        gradients.append(
            torch.autograd.grad(compute(*tensors).square().sum(), tensors[grad_mask.index(True)])[0]
        )
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("with_grad", WITH_GRAD.values(), ids=WITH_GRAD)
def test_every_length_from_1_to_100(with_grad):
    lengths = np.random.default_rng(0).permutation(np.arange(1, 101)).tolist()
    tensors = inputs(lengths, torch.float32)
    torch.testing.assert_close(
        attend(with_grad, tensors, lengths), by_rows(*tensors, lengths), atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize("with_grad", WITH_GRAD.values(), ids=WITH_GRAD)
def test_scale(with_grad):
    tensors = inputs(MIXED)
    torch.testing.assert_close(
        attend(with_grad, tensors, MIXED, scale=0.7),
        reference_attention(*tensors, MIXED, scale=0.7),
        atol=1e-12,
        rtol=1e-12,
    )


def test_scale_in_the_gradient():
    lengths = LENGTHS["one bucket"]
    results = both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(lengths, CPU), scale=0.7),
        lambda *x: reference_attention(*x, lengths, 0.7),
        inputs(lengths),
    )
    for name, actual, reference in results:
        torch.testing.assert_close(
            actual, reference, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("with_grad", WITH_GRAD.values(), ids=WITH_GRAD)
@pytest.mark.parametrize("lengths", [MIXED, LENGTHS["one bucket"]], ids=["mixed", "one bucket"])
def test_changing_one_row_leaves_the_others_bit_equal(lengths, with_grad, dtype):
    tensors, changes = inputs(lengths, dtype), inputs(lengths, dtype, seed=1)
    before = attend(with_grad, tensors, lengths)
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        changed = [x.clone() for x in tensors]
        for x, y in zip(changed, changes, strict=True):
            x[start:stop] = 50 * y[start:stop]
        after = attend(with_grad, changed, lengths)
        assert torch.equal(after[:start], before[:start])
        assert torch.equal(after[stop:], before[stop:])
        assert not torch.equal(after[start:stop], before[start:stop])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("with_grad", WITH_GRAD.values(), ids=WITH_GRAD)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_in_its_row(value, with_grad, dtype):
    """As when one row overflows in fp16: the rows beside it are still right."""
    lengths = LENGTHS["one bucket"]
    tensors = inputs(lengths, dtype)
    before = attend(with_grad, tensors, lengths)
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        changed = [x.clone() for x in tensors]
        for x in changed:
            x[start:stop] = value
        after = attend(with_grad, changed, lengths)
        assert after[start:stop].isnan().all()
        assert torch.equal(after[:start], before[:start]), f"row of {length} from {start}"
        assert torch.equal(after[stop:], before[stop:]), f"row of {length} from {start}"


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_no_gradient_passes_between_rows(rate):
    tensors = [x.requires_grad_() for x in inputs(MIXED, torch.float32)]
    mixed = ragged_attention(*tensors, AttentionPlan(MIXED, CPU), rate)
    stop = 0
    for length in MIXED:
        start, stop = stop, stop + length
        for gradient in torch.autograd.grad(mixed[start:stop].square().sum(), tensors, retain_graph=True):
            assert not gradient[:start].any()
            assert not gradient[stop:].any()


@pytest.mark.parametrize("with_grad", WITH_GRAD.values(), ids=WITH_GRAD)
def test_dropout_drops_shares_and_stays_in_the_row(with_grad):
    lengths = [5, 40, 3, 60]
    query, key, _ = inputs(lengths, torch.float32)
    row = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    value = (
        torch.nn.functional.one_hot(row, SIZE)[:, None].expand(-1, HEADS, -1).float()
    )  # feature r is 1 in row r alone
    kept_probs = []
    for seed in range(40):
        torch.manual_seed(seed)
        DROPOUT_GENERATOR.seed(seed)
        mixed = attend(with_grad, (query, key, value), lengths, dropout=0.25)
        kept_probs.append(mixed[torch.arange(sum(lengths)), :, row])
        assert torch.count_nonzero(mixed) == torch.count_nonzero(kept_probs[-1])
    means = torch.stack(kept_probs)
    assert means.std(0).min() > 0.01  # some probabilities are dropped
    assert means.mean().item() == pytest.approx(1, abs=0.01)  # and the others are scaled up
    assert torch.equal(attend(with_grad, (query, key, value), lengths, dropout=0.0)[:, 0].argmax(-1), row)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_of_dropped_probabilities(rate):
    """With equal scores and unit vectors as values, the outputs show every probability."""
    length, copies = 96, 6
    lengths = [length] * copies
    query = torch.zeros(length * copies, HEADS, length, requires_grad=True)
    value = torch.eye(length).repeat(copies, 1)[:, None].expand(-1, HEADS, -1)
    DROPOUT_GENERATOR.seed(0)
    probs = ragged_attention(
        query, torch.zeros_like(query), value, AttentionPlan(lengths, CPU), rate
    ).detach()
    dropped, gain = rate_to_bytes(rate)
    expected, count = dropped / 256, probs.numel()
    results = (probs == 0).double().mean().item()
    assert abs(results - expected) < 5 * math.sqrt(expected * (1 - expected) / count)
    torch.testing.assert_close(probs[probs != 0], torch.tensor(gain / length).expand(int((probs != 0).sum())))


def masks_of(lengths: list[int], rate: float, first: bool) -> list[torch.Tensor]:
    """Keep masks of the rows: bytes are drawn bucket by bucket, shortest first, pads included."""
    first = first and sum(lengths) > len(lengths)  # if every token is a first token there is no difference
    masks: dict[int, torch.Tensor] = {}
    sizes = [math.ceil(length / BUCKET_SIZE) * BUCKET_SIZE for length in lengths]
    for size in sorted(set(sizes)):
        rows = [row for row, leaves in enumerate(sizes) if leaves == size]
        drawn = draw_keep_mask((len(rows) * HEADS, 1 if first else size, size), rate).view(
            len(rows), HEADS, -1, size
        )
        for position, row in enumerate(rows):
            masks[row] = drawn[position, :, : lengths[row], : lengths[row]].double()
    return [masks[row] for row in range(len(lengths))]


@settings(deadline=None, max_examples=40)
@each(lengths_of_rows, some.booleans(), some.floats(0.02, 0.9), some.integers(0, 2**31))
def test_dropout_with_the_same_bytes_is_a_mask_on_the_shares(lengths, first, rate, seed):
    DROPOUT_GENERATOR.seed(seed)
    masks, gain = masks_of(lengths, rate, first), rate_to_bytes(rate)[1]

    def actual(*x):
        DROPOUT_GENERATOR.seed(seed)
        return ragged_attention(*x, AttentionPlan(lengths, CPU), rate)

    tensors = inputs(lengths, seed=seed, first=first)
    for name, a, b in both_with_gradients(actual, lambda *x: by_rows(*x, lengths, masks, gain), tensors):
        torch.testing.assert_close(
            a, b, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_slow_dropout_draws_from_torch_and_fast_dropout_does_not():
    lengths = LENGTHS["one bucket"]
    for fast in (True, False):
        tensors = [x.requires_grad_() for x in inputs(lengths)]
        torch.manual_seed(0)
        DROPOUT_GENERATOR.seed(0)
        before = torch.get_rng_state(), DROPOUT_GENERATOR.get_state()
        ragged_attention(*tensors, AttentionPlan(lengths, CPU), 0.5, fast_dropout=fast)
        assert torch.equal(torch.get_rng_state(), before[0]) == fast
        assert (DROPOUT_GENERATOR.get_state() != before[1]) == fast


@pytest.mark.parametrize("first", FIRST_ONLY.values(), ids=FIRST_ONLY)
def test_bf16_is_near_fp32(first):
    tensors = inputs(MIXED, torch.float32, first=first)
    exact = both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(MIXED, CPU)), lambda *x: by_rows(*x, MIXED), tensors
    )
    rough = both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(MIXED, CPU)),
        lambda *x: by_rows(*x, MIXED),
        [x.bfloat16() for x in tensors],
    )
    for (name, _, expected), (_, results, _) in zip(exact, rough, strict=True):
        assert results.dtype == torch.bfloat16
        assert (results.float() - expected).norm() < 0.02 * expected.norm(), name
    rough = [x.bfloat16() for x in tensors]
    with_gradients = ragged_attention(*(x.requires_grad_() for x in rough), AttentionPlan(MIXED, CPU))
    with torch.no_grad():
        assert torch.equal(ragged_attention(*rough, AttentionPlan(MIXED, CPU)), with_gradients)


@pytest.mark.parametrize("first", FIRST_ONLY.values(), ids=FIRST_ONLY)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_a_plan_holds_every_token_once_and_pads_little(lengths, first):
    layout = AttentionPlan(lengths, CPU).layout(HEADS, first)
    tokens = torch.arange(sum(lengths) * HEADS).view(-1, HEADS)
    query_lengths = tokens[starts(lengths)] if first else tokens
    keys = torch.cat([bucket.key_index for bucket in layout.buckets])
    queries = torch.cat([bucket.query_index for bucket in layout.buckets])
    query_positions = (
        torch.arange(len(lengths) * HEADS) if first else query_lengths.flatten()
    )  # with first_only the queries are first tokens
    assert torch.equal(keys[layout.key_order], tokens.flatten())
    assert torch.equal(queries[layout.query_order], query_positions)
    assert len(layout.query_order.unique()) == len(layout.query_order)
    assert len(layout.key_order.unique()) == len(layout.key_order)
    query_stop = key_stop = num_tokens_seen = 0
    for bucket in layout.buckets:
        assert (bucket.query_slice.start, bucket.key_slice.start) == (query_stop, key_stop)
        query_stop, key_stop = query_stop + len(bucket.query_index), key_stop + len(bucket.key_index)
        assert (bucket.query_slice.stop, bucket.key_slice.stop) == (query_stop, key_stop)
        assert bucket.length % BUCKET_SIZE == 0
        real = (
            torch.ones(bucket.num_rows, bucket.length, dtype=torch.bool)
            if bucket.key_padding is None
            else ~bucket.key_padding
        )
        sizes = real.sum(-1)
        assert torch.equal(real, torch.arange(bucket.length) < sizes[:, None])  # pads come last
        assert sizes.min() > bucket.length - BUCKET_SIZE
        num_tokens_seen += int(sizes.sum())
        assert bucket.key_padding is None or bucket.key_padding.any()
        if first:
            assert bucket.query_padding is None
            assert len(bucket.query_index) == bucket.num_rows * HEADS
        else:
            assert torch.equal(bucket.query_index, bucket.key_index)
            empty = torch.zeros(bucket.num_rows, HEADS, bucket.length, dtype=torch.bool).flatten()
            if bucket.query_padding is not None:
                empty[bucket.query_padding] = True
            assert torch.equal(empty.view(bucket.num_rows, HEADS, -1), ~real[:, None].expand(-1, HEADS, -1))
    assert (layout.num_queries, layout.num_keys) == (query_stop, key_stop)
    assert num_tokens_seen == sum(lengths)
    assert len(layout.buckets) == len({math.ceil(length / BUCKET_SIZE) for length in lengths})


@settings(deadline=None)
@each(lengths_of_rows)
def test_a_plan_says_where_rows_are(lengths):
    plan = AttentionPlan(lengths, CPU)
    assert (plan.num_tokens, plan.max_seqlen) == (sum(lengths), max(lengths))
    assert plan.cu_seqlens.dtype == torch.int32
    assert plan.cu_seqlens.tolist() == [0, *itertools.accumulate(lengths)]
    assert plan.layout(2, False) is plan.layout(2, False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("length", [16, 32, 48, 64])
def test_softmax_and_its_gradient_at_every_length_of_a_bucket(length, dtype):
    scores = (3 * torch.randn(6, 5, length, generator=torch.Generator().manual_seed(length))).to(dtype)
    d_out = torch.randn(6, 5, length, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = scores.double().requires_grad_()
    exact.softmax(-1).backward(d_out.double())
    probs = attention._softmax(scores)
    gradient = attention._softmax_gradient(d_out, probs)
    assert probs.dtype == gradient.dtype == dtype
    near = {torch.bfloat16: 1e-2, torch.float32: 1e-6}[dtype]
    torch.testing.assert_close(probs.double(), exact.softmax(-1).detach(), rtol=near, atol=near)
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=near, atol=near)
