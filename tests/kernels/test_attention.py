"""Ragged attention is softmax(QK^T)V inside each row, and nothing passes from one row to another."""

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
USUAL = 1 / math.sqrt(SIZE)
MIXED = [1, 100, 32, 7, 33, 64, 65, 2, 96, 97, 1, 31, 50, 7]
CUTS = {
    "mixed": MIXED,
    "one row": [40],
    "one token": [1],
    "single tokens": [1] * 5,
    "equal": [32] * 4,
    "one bucket": [3, 9, 5, 1],
}
WAYS = {
    "with gradients": True,
    "without": False,
}  # our own products in both directions, or whatever is faster forward
ASKING = {"all": False, "first": True}
lengths_of_rows = some.lists(some.integers(1, 200), min_size=1, max_size=7)


def inputs(
    lengths: list[int], dtype: torch.dtype = torch.float64, seed: int = 0, first: bool = False
) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    given = [torch.randn(sum(lengths), HEADS, SIZE, generator=random, dtype=dtype) for _ in range(3)]
    return [given[0][starts(lengths)] if first else given[0], *given[1:]]


def starts(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)][:-1])


def ask(way: bool, given, lengths, *rest, **more) -> torch.Tensor:
    """Attend with or without gradients, and make sure of the way it takes."""
    taken = []
    own = attention._Attention.forward

    def forward(*args):
        taken.append(True)
        return own(*args)

    attention._Attention.forward = staticmethod(forward)
    try:
        given = [x.detach().requires_grad_(way) for x in given]
        answer = ragged_attention(*given, AttentionPlan(lengths, CPU), *rest, **more).detach()
    finally:
        attention._Attention.forward = staticmethod(own)
    assert bool(taken) == way
    return answer


def slowly(query, key, value, lengths, scale=USUAL) -> torch.Tensor:
    """Row by row, head by head, query by query."""
    rows = []
    asked = lengths if len(query) == sum(lengths) else [1] * len(lengths)
    for q, k, v in zip(query.split(asked), key.split(lengths), value.split(lengths), strict=True):
        heads = [
            torch.stack([torch.softmax(k[:, h] @ one * scale, 0) @ v[:, h] for one in q[:, h]])
            for h in range(HEADS)
        ]
        rows.append(torch.stack(heads, 1))
    return torch.cat(rows)


def by_rows(query, key, value, lengths, masks=None, gain=1.0) -> torch.Tensor:
    """Row by row; a mask of a row is (H, Q, S)."""
    asked = lengths if len(query) == sum(lengths) else [1] * len(lengths)
    rows = []
    for row, (q, k, v) in enumerate(
        zip(query.split(asked), key.split(lengths), value.split(lengths), strict=True)
    ):
        shares = torch.softmax(torch.einsum("qhd,khd->hqk", q, k) * USUAL, -1)
        if masks is not None:
            shares = shares * masks[row] * gain
        rows.append(torch.einsum("hqk,khd->qhd", shares, v))
    return torch.cat(rows)


def both_with_gradients(compute, reference, given, seed=1):
    """Answers and gradients of a weighted sum of them, of ours and of the reference."""
    found = []
    for function in (compute, reference):
        here = [x.detach().clone().requires_grad_() for x in given]
        answer = function(*here)
        weights = torch.randn(answer.shape, generator=torch.Generator().manual_seed(seed), dtype=answer.dtype)
        found.append((answer.detach(), *torch.autograd.grad((answer * weights).sum(), here)))
    return list(zip(("answer", "query", "key", "value"), *found, strict=True))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("first", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("lengths", CUTS.values(), ids=CUTS)
def test_forward(lengths, first, way):
    given = inputs(lengths, first=first)
    torch.testing.assert_close(ask(way, given, lengths), slowly(*given, lengths), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("first", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("lengths", CUTS.values(), ids=CUTS)
def test_gradients(lengths, first):
    given = inputs(lengths, first=first)
    for name, ours, slow in both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(lengths, CPU)), lambda *x: slowly(*x, lengths), given
    ):
        torch.testing.assert_close(
            ours, slow, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@settings(deadline=None, max_examples=40)
@each(lengths_of_rows, some.booleans(), some.integers(0, 2**31))
def test_any_lengths_forward_and_backward(lengths, first, seed):
    given = inputs(lengths, seed=seed, first=first)
    for name, ours, slow in both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(lengths, CPU)), lambda *x: by_rows(*x, lengths), given
    ):
        torch.testing.assert_close(
            ours, slow, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@settings(deadline=None, max_examples=40)
@each(lengths_of_rows, some.booleans())
def test_both_ways_give_the_same(lengths, first):
    given = inputs(lengths, first=first)
    torch.testing.assert_close(ask(True, given, lengths), ask(False, given, lengths), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("first", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_numerical_gradients(first, rate):
    lengths = [3, 1, 33]
    random = torch.Generator().manual_seed(0)
    given = [torch.randn(sum(lengths), 2, 3, generator=random, dtype=torch.float64) for _ in range(3)]
    given[0] = given[0][starts(lengths)] if first else given[0]

    def compute(*x):
        DROPOUT_GENERATOR.seed(5)
        return ragged_attention(*x, AttentionPlan(lengths, CPU), rate)

    assert torch.autograd.gradcheck(compute, [x.requires_grad_() for x in given], fast_mode=True)


@pytest.mark.parametrize(
    "wanted",
    [[True, False, False], [False, True, False], [False, False, True]],
    ids=["query", "key", "value"],
)
def test_a_gradient_of_one_input_alone(wanted):
    lengths = CUTS["one bucket"]
    gradients = []
    for compute in (
        lambda *x: ragged_attention(*x, AttentionPlan(lengths, CPU)),
        lambda *x: by_rows(*x, lengths),
    ):
        given = [x.requires_grad_(want) for x, want in zip(inputs(lengths), wanted, strict=True)]
        gradients.append(torch.autograd.grad(compute(*given).square().sum(), given[wanted.index(True)])[0])
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_length_from_1_to_100(way):
    lengths = np.random.default_rng(0).permutation(np.arange(1, 101)).tolist()
    given = inputs(lengths, torch.float32)
    torch.testing.assert_close(ask(way, given, lengths), by_rows(*given, lengths), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_scale(way):
    given = inputs(MIXED)
    torch.testing.assert_close(
        ask(way, given, MIXED, scale=0.7), slowly(*given, MIXED, scale=0.7), atol=1e-12, rtol=1e-12
    )


def test_scale_in_the_gradient():
    lengths = CUTS["one bucket"]
    found = both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(lengths, CPU), scale=0.7),
        lambda *x: slowly(*x, lengths, 0.7),
        inputs(lengths),
    )
    for name, ours, slow in found:
        torch.testing.assert_close(
            ours, slow, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("lengths", [MIXED, CUTS["one bucket"]], ids=["mixed", "one bucket"])
def test_changing_one_row_leaves_the_others_bit_equal(lengths, way, dtype):
    given, changes = inputs(lengths, dtype), inputs(lengths, dtype, seed=1)
    before = ask(way, given, lengths)
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        changed = [x.clone() for x in given]
        for x, y in zip(changed, changes, strict=True):
            x[start:stop] = 50 * y[start:stop]
        after = ask(way, changed, lengths)
        assert torch.equal(after[:start], before[:start])
        assert torch.equal(after[stop:], before[stop:])
        assert not torch.equal(after[start:stop], before[start:stop])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_in_its_row(value, way, dtype):
    """As when one row overflows in fp16: the rows beside it are still right."""
    lengths = CUTS["one bucket"]
    given = inputs(lengths, dtype)
    before = ask(way, given, lengths)
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        changed = [x.clone() for x in given]
        for x in changed:
            x[start:stop] = value
        after = ask(way, changed, lengths)
        assert after[start:stop].isnan().all()
        assert torch.equal(after[:start], before[:start]), f"row of {length} from {start}"
        assert torch.equal(after[stop:], before[stop:]), f"row of {length} from {start}"


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_no_gradient_passes_between_rows(rate):
    given = [x.requires_grad_() for x in inputs(MIXED, torch.float32)]
    mixed = ragged_attention(*given, AttentionPlan(MIXED, CPU), rate)
    stop = 0
    for length in MIXED:
        start, stop = stop, stop + length
        for gradient in torch.autograd.grad(mixed[start:stop].square().sum(), given, retain_graph=True):
            assert not gradient[:start].any()
            assert not gradient[stop:].any()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_dropout_drops_shares_and_stays_in_the_row(way):
    lengths = [5, 40, 3, 60]
    query, key, _ = inputs(lengths, torch.float32)
    row = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    value = (
        torch.nn.functional.one_hot(row, SIZE)[:, None].expand(-1, HEADS, -1).float()
    )  # feature r is 1 in row r alone
    kept_shares = []
    for seed in range(40):
        torch.manual_seed(seed)
        DROPOUT_GENERATOR.seed(seed)
        mixed = ask(way, (query, key, value), lengths, dropout=0.25)
        kept_shares.append(mixed[torch.arange(sum(lengths)), :, row])
        assert torch.count_nonzero(mixed) == torch.count_nonzero(kept_shares[-1])
    means = torch.stack(kept_shares)
    assert means.std(0).min() > 0.01  # some shares are dropped
    assert means.mean().item() == pytest.approx(1, abs=0.01)  # and the rest made larger for it
    assert torch.equal(ask(way, (query, key, value), lengths, dropout=0.0)[:, 0].argmax(-1), row)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_of_dropped_probabilities(rate):
    """With equal scores and the unit vectors as values, the answers show every share there is."""
    length, copies = 96, 6
    lengths = [length] * copies
    query = torch.zeros(length * copies, HEADS, length, requires_grad=True)
    value = torch.eye(length).repeat(copies, 1)[:, None].expand(-1, HEADS, -1)
    DROPOUT_GENERATOR.seed(0)
    shares = ragged_attention(
        query, torch.zeros_like(query), value, AttentionPlan(lengths, CPU), rate
    ).detach()
    dropped, gain = rate_to_bytes(rate)
    expected, count = dropped / 256, shares.numel()
    found = (shares == 0).double().mean().item()
    assert abs(found - expected) < 5 * math.sqrt(expected * (1 - expected) / count)
    torch.testing.assert_close(
        shares[shares != 0], torch.tensor(gain / length).expand(int((shares != 0).sum()))
    )


def masks_of(lengths: list[int], rate: float, first: bool) -> list[torch.Tensor]:
    """Which shares of each row are kept: bytes are drawn bucket by bucket, shortest first, pads among them."""
    first = first and sum(lengths) > len(lengths)  # where every token is a first one, there is no difference
    masks: dict[int, torch.Tensor] = {}
    sizes = [math.ceil(length / BUCKET_SIZE) * BUCKET_SIZE for length in lengths]
    for size in sorted(set(sizes)):
        rows = [row for row, here in enumerate(sizes) if here == size]
        drawn = draw_keep_mask((len(rows) * HEADS, 1 if first else size, size), rate).view(
            len(rows), HEADS, -1, size
        )
        for place, row in enumerate(rows):
            masks[row] = drawn[place, :, : lengths[row], : lengths[row]].double()
    return [masks[row] for row in range(len(lengths))]


@settings(deadline=None, max_examples=40)
@each(lengths_of_rows, some.booleans(), some.floats(0.02, 0.9), some.integers(0, 2**31))
def test_dropout_with_the_same_bytes_is_a_mask_on_the_shares(lengths, first, rate, seed):
    DROPOUT_GENERATOR.seed(seed)
    masks, gain = masks_of(lengths, rate, first), rate_to_bytes(rate)[1]

    def ours(*x):
        DROPOUT_GENERATOR.seed(seed)
        return ragged_attention(*x, AttentionPlan(lengths, CPU), rate)

    given = inputs(lengths, seed=seed, first=first)
    for name, a, b in both_with_gradients(ours, lambda *x: by_rows(*x, lengths, masks, gain), given):
        torch.testing.assert_close(
            a, b, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_slow_dropout_draws_from_torch_and_fast_dropout_does_not():
    lengths = CUTS["one bucket"]
    for fast in (True, False):
        given = [x.requires_grad_() for x in inputs(lengths)]
        torch.manual_seed(0)
        DROPOUT_GENERATOR.seed(0)
        before = torch.get_rng_state(), DROPOUT_GENERATOR.get_state()
        ragged_attention(*given, AttentionPlan(lengths, CPU), 0.5, fast_dropout=fast)
        assert torch.equal(torch.get_rng_state(), before[0]) == fast
        assert (DROPOUT_GENERATOR.get_state() != before[1]) == fast


@pytest.mark.parametrize("first", ASKING.values(), ids=ASKING)
def test_bf16_is_near_fp32(first):
    given = inputs(MIXED, torch.float32, first=first)
    exact = both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(MIXED, CPU)), lambda *x: by_rows(*x, MIXED), given
    )
    rough = both_with_gradients(
        lambda *x: ragged_attention(*x, AttentionPlan(MIXED, CPU)),
        lambda *x: by_rows(*x, MIXED),
        [x.bfloat16() for x in given],
    )
    for (name, _, expected), (_, found, _) in zip(exact, rough, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found.float() - expected).norm() < 0.02 * expected.norm(), name
    rough = [x.bfloat16() for x in given]
    with_gradients = ragged_attention(*(x.requires_grad_() for x in rough), AttentionPlan(MIXED, CPU))
    with torch.no_grad():
        assert torch.equal(ragged_attention(*rough, AttentionPlan(MIXED, CPU)), with_gradients)


@pytest.mark.parametrize("first", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("lengths", CUTS.values(), ids=CUTS)
def test_a_plan_holds_every_token_once_and_pads_little(lengths, first):
    layout = AttentionPlan(lengths, CPU).layout(HEADS, first)
    tokens = torch.arange(sum(lengths) * HEADS).view(-1, HEADS)
    asked = tokens[starts(lengths)] if first else tokens
    keys = torch.cat([bucket.key_index for bucket in layout.buckets])
    queries = torch.cat([bucket.query_index for bucket in layout.buckets])
    places = (
        torch.arange(len(lengths) * HEADS) if first else asked.flatten()
    )  # with first tokens alone, there are only they
    assert torch.equal(keys[layout.key_order], tokens.flatten())
    assert torch.equal(queries[layout.query_order], places)
    assert len(layout.query_order.unique()) == len(layout.query_order)
    assert len(layout.key_order.unique()) == len(layout.key_order)
    done = done_keys = seen = 0
    for bucket in layout.buckets:
        assert (bucket.query_slice.start, bucket.key_slice.start) == (done, done_keys)
        done, done_keys = done + len(bucket.query_index), done_keys + len(bucket.key_index)
        assert (bucket.query_slice.stop, bucket.key_slice.stop) == (done, done_keys)
        assert bucket.length % BUCKET_SIZE == 0
        real = (
            torch.ones(bucket.num_rows, bucket.length, dtype=torch.bool)
            if bucket.key_padding is None
            else ~bucket.key_padding
        )
        sizes = real.sum(-1)
        assert torch.equal(real, torch.arange(bucket.length) < sizes[:, None])  # pads come last
        assert sizes.min() > bucket.length - BUCKET_SIZE
        seen += int(sizes.sum())
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
    assert (layout.num_queries, layout.num_keys) == (done, done_keys)
    assert seen == sum(lengths)
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
    above = torch.randn(6, 5, length, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = scores.double().requires_grad_()
    exact.softmax(-1).backward(above.double())
    shares = attention._softmax(scores)
    gradient = attention._softmax_gradient(above, shares)
    assert shares.dtype == gradient.dtype == dtype
    near = {torch.bfloat16: 1e-2, torch.float32: 1e-6}[dtype]
    torch.testing.assert_close(shares.double(), exact.softmax(-1).detach(), rtol=near, atol=near)
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=near, atol=near)
