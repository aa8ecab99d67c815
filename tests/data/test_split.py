"""Subsets and dev sets have exact sizes, keep shares, and depend on the seed; no text is on both sides."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertune.data.split import LabelledRows, stratified_sample, train_dev_split

KEYS = st.lists(st.sampled_from(["a", "b", "c", "", ("x", "y")]), max_size=60)
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.floats(0.01, 0.99)


def within_one_row(keys: list, places: list[int], count: int) -> None:
    """Each key has its share of `count` rows, rounded down or up."""
    drawn = Counter(keys[place] for place in places)
    for key, rows in Counter(keys).items():
        exact = rows * count / len(keys)
        assert abs(drawn[key] - exact) < 1, f"{key!r}: {drawn[key]} of {rows} rows where {exact} are due"


@settings(deadline=None)
@given(KEYS, st.integers(0, 70), SEEDS)
def test_draw_is_an_exact_subset_that_keeps_shares(keys: list, count: int, seed: int) -> None:
    places = stratified_sample(keys, count, seed)
    assert len(places) == min(count, len(keys))
    assert places == sorted(set(places))
    assert set(places) <= set(range(len(keys)))
    assert all(type(place) is int for place in places)
    within_one_row(keys, places, min(count, len(keys)))
    assert stratified_sample(keys, count, seed) == places


def test_draw_of_all_or_more_is_all() -> None:
    assert stratified_sample("abab", 4, 0) == stratified_sample("abab", 99, 7) == [0, 1, 2, 3]
    assert stratified_sample([], 3, 0) == []


def test_draw_depends_on_the_seed() -> None:
    keys = ["a", "b"] * 50
    assert len({tuple(stratified_sample(keys, 20, seed)) for seed in range(20)}) == 20


def test_draw_prefers_no_row() -> None:
    drawn = Counter(
        place for seed in range(400) for place in stratified_sample(["a"] * 6 + ["b"] * 4, 5, seed)
    )
    assert set(drawn) == set(range(10))
    assert all(150 < times < 250 for times in drawn.values()), drawn  # 200 expected, standard deviation 10


def test_draw_breaks_ties_by_chance() -> None:
    drawn = Counter("abcd"[stratified_sample("abcd", 1, seed)[0]] for seed in range(400))
    assert set(drawn) == set("abcd")
    assert all(60 < times < 140 for times in drawn.values()), drawn  # 100 expected, standard deviation 8.7


def test_rare_keys_are_drawn_as_often_as_they_are_due() -> None:
    keys = ["a"] * 90 + ["b"] * 10
    for seed in range(20):
        assert Counter(keys[place] for place in stratified_sample(keys, 30, seed)) == {"a": 27, "b": 3}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.sampled_from("ab")), max_size=60), SHARES, SEEDS)
def test_split_is_a_partition_that_keeps_equal_texts_together(
    rows: list[tuple[int, str]], share: float, seed: int
) -> None:
    texts, keys = [text for text, _ in rows], [key for _, key in rows]
    train, dev = train_dev_split(texts, keys, share, seed)
    assert sorted(train + dev) == list(range(len(rows)))
    assert train == sorted(train)
    assert dev == sorted(dev)
    assert not {texts[row] for row in train} & {texts[row] for row in dev}
    assert train_dev_split(texts, keys, share, seed) == (train, dev)


@settings(deadline=None)
@given(st.lists(st.integers(0, 25), min_size=2, max_size=60), SHARES, SEEDS)
def test_split_has_the_exact_number_of_texts_and_keeps_shares(
    texts: list[int], share: float, seed: int
) -> None:
    keys = [text % 3 for text in texts]
    train, dev = train_dev_split(texts, keys, share, seed)
    unique = list(dict.fromkeys(texts))
    held = {texts[row] for row in dev}
    if len(unique) > 1:
        assert train
        assert dev
        assert len(held) == min(max(1, round(len(unique) * share)), len(unique) - 1)
    within_one_row(
        [text % 3 for text in unique], [place for place, text in enumerate(unique) if text in held], len(held)
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=80), SHARES, SEEDS)
def test_split_of_rows_that_all_differ_keeps_shares_on_both_sides(
    keys: list[str], share: float, seed: int
) -> None:
    train, dev = train_dev_split(range(len(keys)), keys, share, seed)
    within_one_row(keys, dev, len(dev))
    within_one_row(keys, train, len(train))


@pytest.mark.parametrize(
    ("num_rows", "share", "in_dev"),
    [(100, 0.1, 10), (100, 0.001, 1), (10, 0.99, 9), (2, 0.9, 1), (3, 0.5, 2), (7, 0.1, 1)],
)
def test_split_sizes(num_rows: int, share: float, in_dev: int) -> None:
    train, dev = train_dev_split(range(num_rows), ["k"] * num_rows, share, 1)
    assert (len(train), len(dev)) == (num_rows - in_dev, in_dev)


def test_split_depends_on_the_seed() -> None:
    parts = {tuple(train_dev_split(range(50), ["k"] * 50, 0.2, seed)[1]) for seed in range(20)}
    assert len(parts) == 20


def test_split_counts_texts_not_rows() -> None:
    texts = ["same"] * 90 + [f"t{n}" for n in range(9)]
    for seed in range(20):
        train, dev = train_dev_split(texts, ["k"] * 99, 0.1, seed)
        sides = defaultdict(set)
        for side, rows in (("train", train), ("dev", dev)):
            sides[side] = {texts[row] for row in rows}
        assert len(sides["dev"]) == 1
        assert len(sides["train"]) == 9


def test_pairs_of_texts_and_one_text_alone() -> None:
    train, dev = train_dev_split([("a", "b"), ("a", "c"), ("a", "b")], ["k"] * 3, 0.5, 0)
    assert [0, 2] in (train, dev)
    assert train_dev_split(["x", "x"], ["k", "l"], 0.5, 0) == ([], [0, 1])
    assert train_dev_split([], [], 0.5, 0) == ([], [])


# ---------------------------------------------------------------- every label keeps a row

combined = st.lists(st.sampled_from(["", "a", "b", "c", "a\0b", "b\0c", "d"]), min_size=2, max_size=40)


def labels_of(keys: list[str]) -> set[str]:
    return {label for key in keys for label in key.split("\0") if key}


@given(combined, st.lists(st.integers(0, 8), min_size=40, max_size=40), st.integers(0, 5), st.integers(0, 40))
def test_cover_exchanges_whole_texts_and_loses_no_label(
    keys: list[str], texts: list[int], seed: int, min_left: int
) -> None:
    text_ids = np.array(texts[: len(keys)])
    kept = np.isin(text_ids, np.unique(text_ids)[: max(1, len(np.unique(text_ids)) // 2)])
    rows = LabelledRows(keys)
    covered = rows.cover(kept, text_ids, seed, min_left=min_left)
    assert set(rows.lost(covered)) <= set(rows.lost(kept))
    assert not set(text_ids[covered]) & set(text_ids[~covered])
    num_texts = [len(np.unique(text_ids[mask])) for mask in (kept, covered)]
    assert num_texts[1] == num_texts[0] or (num_texts[1] > num_texts[0] and (~covered).sum() >= min_left)
    if not rows.lost(kept):
        assert (covered == kept).all()
    assert (covered == rows.cover(kept, text_ids, seed, min_left=min_left)).all()


@pytest.mark.parametrize("keys", [["a"] * 30 + ["b"], ["a\0c"] * 30 + ["b\0a"], ["x", "y", *["a"] * 20]])
def test_cover_takes_the_rare_label_and_keeps_the_number(keys: list[str]) -> None:
    rows = LabelledRows(keys)
    kept = np.array([key == "a" or key == "a\0c" for key in keys])
    covered = rows.cover(kept, np.arange(len(keys)), 0, min_left=40)
    assert rows.lost(covered) == []
    assert covered.sum() == kept.sum()


def test_cover_cannot_have_more_labels_than_rows() -> None:
    rows = LabelledRows(["a", "b", "c"])
    kept = np.array([True, False, False])
    assert rows.cover(kept, np.arange(3), 0, min_left=2).tolist() == [True, False, False]
    assert rows.cover(kept, np.arange(3), 0, min_left=1).tolist() == [True, True, False]


def test_counts_of_labels() -> None:
    rows = LabelledRows(["a\0b", "", "b", "a\0b"])
    assert (rows.names, rows.count(np.array([0, 1, 2])).tolist()) == (["a", "b"], [1, 2])
    assert rows.lost(np.array([False, True, True, False])) == ["a"]
