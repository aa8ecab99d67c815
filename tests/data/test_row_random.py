"""Random numbers of rows: uniform, independent of the other rows, and different for every use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from bertune.data.row_random import row_keys, uniform
from bertune.types import Ragged


def ragged_of(rows: list[list[int]]) -> Ragged:
    lengths = tuple(map(len, rows))
    ids = torch.tensor([number for row in rows for number in row], dtype=torch.long)
    offsets = torch.tensor([0, *np.cumsum(lengths, dtype=int)], dtype=torch.long)
    return Ragged(ids, torch.zeros_like(ids), offsets, lengths)


rows_of_ids = st.lists(st.lists(st.integers(0, 300_000), max_size=8), min_size=1, max_size=12)


@given(rows_of_ids, st.integers(-(2**70), 2**70))
def test_a_key_depends_on_its_row_alone(rows, seed):
    alone = [int(row_keys(ragged_of([row]), seed)[0]) for row in rows]
    assert row_keys(ragged_of(rows), seed).tolist() == alone
    by_content = {tuple(row): key for row, key in zip(rows, alone, strict=True)}
    assert len(set(by_content.values())) == len(by_content)


def test_order_length_and_seed_change_the_key():
    rows = [[], [0], [0, 0], [1], [1, 2], [2, 1], [0, 1, 2], [1, 2, 0]]
    keys = [row_keys(ragged_of(rows), seed) for seed in (0, 1, 2, 2**40, -1)]
    assert len(np.unique(np.concatenate(keys))) == len(rows) * len(keys)


@pytest.mark.parametrize("vary", ["keys", "counter", "stream", "seed"])
def test_numbers_are_uniform_and_successive_ones_do_not_correlate(vary):
    count = 20_000
    keys = row_keys(ragged_of([[n] for n in range(count)]), 0)
    if vary == "keys":
        numbers = uniform(keys, 0)
    elif vary == "counter":
        numbers = uniform(np.repeat(keys[:1], count), np.arange(count))
    elif vary == "stream":
        numbers = np.array([uniform(keys[:1], 0, stream)[0] for stream in range(2000)])
    else:
        numbers = np.array([uniform(row_keys(ragged_of([[5, 6]]), n), 0)[0] for n in range(2000)])
    assert numbers.min() >= 0 and numbers.max() < 1
    assert kstest(numbers, "uniform").pvalue > 1e-3
    correlation = np.corrcoef(numbers[:-1], numbers[1:])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(numbers))


def test_streams_of_one_counter_are_independent():
    keys = row_keys(ragged_of([[n] for n in range(20_000)]), 3)
    first, second = uniform(keys, 7, 0), uniform(keys, 7, 1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(keys))


def test_a_batch_without_rows_has_no_keys():
    assert row_keys(ragged_of([]), 0).shape == (0,)
