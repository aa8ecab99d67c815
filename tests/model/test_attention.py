"""Ragged attention is softmax(QK^T)V inside each row, and nothing passes from one row to another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bertune.model.attention import BUCKET, attend, plan

CPU = torch.device("cpu")
HEADS, SIZE = 3, 8
USUAL = 1 / math.sqrt(SIZE)
MIXED = [1, 100, 32, 7, 33, 64, 65, 2, 96, 97, 1, 31, 50, 7]
CUTS = {"mixed": MIXED, "one row": [40], "one token": [1], "single tokens": [1] * 5, "equal": [32] * 4, "one bucket": [3, 9, 5, 1]}


def inputs(lengths: list[int], dtype: torch.dtype = torch.float64, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(sum(lengths), HEADS, SIZE, generator=random, dtype=dtype) for _ in range(3)]


def slowly(query, key, value, lengths, scale=USUAL) -> torch.Tensor:
    """Row by row, head by head, query by query."""
    rows = []
    for q, k, v in zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True):
        heads = [torch.stack([torch.softmax(k[:, h] @ one * scale, 0) @ v[:, h] for one in q[:, h]]) for h in range(HEADS)]
        rows.append(torch.stack(heads, 1))
    return torch.cat(rows)


@pytest.mark.parametrize("lengths", CUTS.values(), ids=CUTS)
def test_forward(lengths):
    given = inputs(lengths)
    torch.testing.assert_close(attend(*given, plan(lengths, CPU)), slowly(*given, lengths), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("lengths", CUTS.values(), ids=CUTS)
def test_gradients(lengths):
    weights = inputs(lengths, seed=1)[0]
    gradients = []
    for compute in (lambda *x: attend(*x, plan(lengths, CPU)), lambda *x: slowly(*x, lengths)):
        given = [x.requires_grad_() for x in inputs(lengths)]
        gradients.append(torch.autograd.grad((compute(*given) * weights).sum(), given))
    for name, ours, slow in zip(("query", "key", "value"), *gradients, strict=True):
        torch.testing.assert_close(ours, slow, atol=1e-12, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_every_length_from_1_to_100():
    lengths = np.random.default_rng(0).permutation(np.arange(1, 101)).tolist()
    given = inputs(lengths, torch.float32)
    packed = attend(*given, plan(lengths, CPU))
    rows = zip(*(x.split(lengths) for x in given), strict=True)
    one_by_one = []
    for q, k, v in rows:
        shares = torch.softmax(torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(SIZE), -1)
        one_by_one.append(torch.einsum("hqk,khd->qhd", shares, v))
    torch.testing.assert_close(packed, torch.cat(one_by_one), atol=2e-6, rtol=1e-5)


def test_scale():
    given = inputs(MIXED)
    torch.testing.assert_close(attend(*given, plan(MIXED, CPU), scale=0.7), slowly(*given, MIXED, scale=0.7), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("lengths", [MIXED, CUTS["one bucket"]], ids=["mixed", "one bucket"])
def test_changing_one_row_leaves_the_others_bit_equal(lengths):
    given, changes = inputs(lengths, torch.float32), inputs(lengths, torch.float32, seed=1)
    before = attend(*given, plan(lengths, CPU))
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        changed = [x.clone() for x in given]
        for x, y in zip(changed, changes, strict=True):
            x[start:stop] = 50 * y[start:stop]
        after = attend(*changed, plan(lengths, CPU))
        assert torch.equal(after[:start], before[:start])
        assert torch.equal(after[stop:], before[stop:])
        assert not torch.equal(after[start:stop], before[start:stop])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_in_its_row(value):
    """As when one row overflows in fp16: the rows beside it are still right."""
    lengths = CUTS["one bucket"]
    given = inputs(lengths, torch.float32)
    before = attend(*given, plan(lengths, CPU))
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        changed = [x.clone() for x in given]
        for x in changed:
            x[start:stop] = value
        after = attend(*changed, plan(lengths, CPU))
        assert after[start:stop].isnan().all()
        assert torch.equal(after[:start], before[:start]), f"row of {length} from {start}"
        assert torch.equal(after[stop:], before[stop:]), f"row of {length} from {start}"


def test_no_gradient_passes_between_rows():
    given = [x.requires_grad_() for x in inputs(MIXED, torch.float32)]
    mixed = attend(*given, plan(MIXED, CPU))
    stop = 0
    for length in MIXED:
        start, stop = stop, stop + length
        for gradient in torch.autograd.grad(mixed[start:stop].square().sum(), given, retain_graph=True):
            assert not gradient[:start].any()
            assert not gradient[stop:].any()


def test_dropout_drops_shares_and_stays_in_the_row():
    lengths = [5, 40, 3, 60]
    query, key, _ = inputs(lengths, torch.float32)
    row = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    value = torch.nn.functional.one_hot(row, SIZE)[:, None].expand(-1, HEADS, -1).float()  # feature r is 1 in row r alone
    kept = []
    for seed in range(40):
        torch.manual_seed(seed)
        mixed = attend(query, key, value, plan(lengths, CPU), dropout=0.25)
        kept.append(mixed[torch.arange(sum(lengths)), :, row])
        assert torch.count_nonzero(mixed) == torch.count_nonzero(kept[-1])
    means = torch.stack(kept)
    assert means.std(0).min() > 0.01  # some shares are dropped
    assert means.mean().item() == pytest.approx(1, abs=0.01)  # and the rest made larger for it
    assert torch.equal(attend(query, key, value, plan(lengths, CPU), dropout=0.0)[:, 0].argmax(-1), row)


@pytest.mark.parametrize("lengths", CUTS.values(), ids=CUTS)
def test_a_plan_holds_every_token_once_and_pads_little(lengths):
    made = plan(lengths, CPU)
    places = torch.cat([bucket.tokens.flatten() for bucket in made.buckets])
    assert torch.equal(places[made.back], torch.arange(sum(lengths)))
    real = torch.cat([torch.ones(b.tokens.numel(), dtype=torch.bool) if b.real is None else b.real.flatten() for b in made.buckets])
    assert real.sum() == sum(lengths)
    assert torch.equal(real.nonzero()[:, 0].sort().values, made.back.sort().values)
    for bucket in made.buckets:
        sizes = torch.full((len(bucket.tokens),), bucket.tokens.shape[1]) if bucket.real is None else bucket.real[:, 0, 0].sum(-1)
        assert bucket.tokens.shape[1] == sizes.max()
        assert sizes.max() - sizes.min() < BUCKET
        assert bucket.real is None or not bucket.real.all()
    assert len(made.buckets) == len({math.ceil(length / BUCKET) for length in lengths})
