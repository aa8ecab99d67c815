"""Folds: a partition, nothing that belongs together is divided, strata are even."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from bertune.data.folds import make_folds, tie_rows
from bertune.errors import DataError


def counts_by_fold(folds, strata, num_folds):
    """(folds, strata) rows."""
    codes = np.unique(strata, return_inverse=True)[1]
    return np.array([np.bincount(codes[folds == f], minlength=codes.max() + 1) for f in range(num_folds)])


@st.composite
def tables(draw, tied=True):
    rows = draw(st.integers(2, 60))
    number = st.integers(0, rows if tied else 0)
    texts = draw(st.lists(number, min_size=rows, max_size=rows)) if tied else range(rows)
    groups = draw(st.none() | st.lists(number, min_size=rows, max_size=rows)) if tied else None
    strata = draw(st.lists(st.sampled_from(["", "a", "b", "a\0b", "中"]), min_size=rows, max_size=rows))
    folds = draw(st.integers(2, min(rows, 7)))
    texts, groups = np.array(texts), None if groups is None else np.array(groups)
    return strata, texts, groups, folds, draw(st.integers(0, 2**32 - 1))


@given(tables())
def test_folds_are_a_partition_that_divides_no_text_and_no_group(table):
    strata, texts, groups, num_folds, seed = table
    if tie_rows(texts, groups).max() + 1 < num_folds:
        with pytest.raises(DataError, match="cannot be divided into"):
            make_folds(strata, texts, groups, num_folds, seed)
        return
    folds = make_folds(strata, texts, groups, num_folds, seed)
    assert folds.shape == texts.shape
    assert set(folds.tolist()) == set(range(num_folds))  # none is empty
    for tied in [texts] if groups is None else [texts, groups]:
        for number in np.unique(tied):
            assert len(set(folds[tied == number].tolist())) == 1
    assert (folds == make_folds(strata, texts, groups, num_folds, seed)).all()


@given(tables(tied=False))
def test_rows_that_are_not_tied_are_even_over_folds_in_every_stratum_and_in_all(table):
    strata, texts, groups, num_folds, seed = table
    folds = make_folds(strata, texts, groups, num_folds, seed)
    counts = counts_by_fold(folds, strata, num_folds)
    assert (counts.max(0) - counts.min(0) <= 1).all()
    assert np.ptp(counts.sum(1)) <= 1


@given(tables(), st.randoms(use_true_random=False))
def test_ties_are_what_a_search_over_neighbours_finds(table, random):
    _, texts, groups, _, _ = table
    ties = tie_rows(texts, groups)
    start = random.randrange(len(texts))
    reached, border = {start}, {start}
    while border:
        row = border.pop()
        near = set(np.flatnonzero(texts == texts[row]).tolist())
        if groups is not None:
            near |= set(np.flatnonzero(groups == groups[row]).tolist())
        border |= near - reached
        reached |= near
    assert set(np.flatnonzero(ties == ties[start]).tolist()) == reached


def test_the_seed_draws_other_folds():
    texts = np.arange(40)
    drawn = {tuple(make_folds(["a", "b"] * 20, texts, None, 4, seed).tolist()) for seed in range(5)}
    assert len(drawn) == 5


def test_sorted_rows_are_mixed_and_a_large_group_is_balanced_by_the_rest():
    strata = ["a"] * 50 + ["b"] * 50
    counts = counts_by_fold(make_folds(strata, np.arange(100), None, 5, 0), strata, 5)
    assert (counts == 10).all()
    groups = np.concatenate([np.zeros(20, int), np.arange(1, 81)])  # 20 rows of one group, 80 alone
    folds = make_folds([""] * 100, np.arange(100), groups, 5, 0)
    assert np.bincount(folds).tolist() == [20] * 5


def unevenness(folds, strata, num_folds):
    """What StratifiedGroupKFold minimises: the mean over strata of the deviation of their shares."""
    counts = counts_by_fold(folds, strata, num_folds)
    return (counts / counts.sum(0)).std(0).mean()


def sklearn_folds(splitter, strata, groups):
    folds = np.empty(len(strata), int)
    for number, (_, rows) in enumerate(splitter.split(np.zeros(len(strata)), strata, groups)):
        folds[rows] = number
    return folds


@pytest.mark.parametrize("num_folds", [2, 3, 5, 10])
def test_strata_are_as_even_as_those_of_scikit_learn(num_folds):
    rng = np.random.default_rng(num_folds)
    ours, theirs = [], []
    for seed in range(25):
        num_rows, num_groups = int(rng.integers(100, 400)), int(rng.integers(25, 60))
        # Labels depend on the group, as those of patients or authors do.
        groups = rng.integers(0, num_groups, num_rows)
        share = rng.dirichlet(np.ones(4), num_groups)
        strata = np.array([rng.choice(4, p=share[g]) for g in groups])
        peer = sklearn_folds(StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed), strata, groups)
        own = make_folds(strata, np.arange(num_rows), groups, num_folds, seed)
        ours.append(unevenness(own, strata, num_folds))
        theirs.append(unevenness(peer, strata, num_folds))
        if np.bincount(strata).min() >= num_folds:
            alone = make_folds(strata, np.arange(num_rows), None, num_folds, seed)
            plain = sklearn_folds(StratifiedKFold(num_folds, shuffle=True, random_state=seed), strata, None)
            assert unevenness(alone, strata, num_folds) <= unevenness(plain, strata, num_folds) + 1e-9
    assert np.mean(ours) <= np.mean(theirs)


def test_a_million_rows_are_dealt_in_whole_arrays():
    rng = np.random.default_rng(0)
    strata, texts = rng.integers(0, 20, 1_000_000), rng.integers(0, 700_000, 1_000_000)
    folds = make_folds(strata, texts, None, 5, 0)
    counts = counts_by_fold(folds, strata, 5)
    assert (np.ptp(counts, axis=0) <= 2).all()
