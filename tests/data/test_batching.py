"""Batches hold the tokens of exactly their rows; orders and micro-batches lose no row and keep limits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertune.data.batching import epoch_order, length_sorted_batches, micro_batches, num_batches
from bertune.data.dataset import EncodedDataset
from bertune.types import EncodedExample, Encoding

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=50)


def encoded(*rows: tuple[list[int], ...], targets: list | None = None, cut: int = 0) -> EncodedDataset:
    """Rows of one or more inputs; a token is of segment 1 when its id is odd."""
    made = [tuple(Encoding(ids, [i % 2 for i in ids], cut) for ids in inputs) for inputs in rows]
    return EncodedDataset(
        [
            EncodedExample(inputs, target)
            for inputs, target in zip(made, targets or [None] * len(rows), strict=True)
        ]
    )


# ---------------------------------------------------------------- EncodedRows


def test_a_batch_holds_its_rows_in_the_order_asked() -> None:
    rows = encoded(([101, 7, 102],), ([101, 102],), ([101, 30000, 9, 8, 102],), targets=[0, 1, 2])
    batch = rows.get_batch([2, 0], torch.tensor)
    ragged = batch.ragged
    assert ragged.input_ids.tolist() == [101, 30000, 9, 8, 102, 101, 7, 102]
    assert ragged.token_type_ids.tolist() == [1, 0, 1, 0, 0, 1, 1, 0]
    assert ragged.offsets.tolist() == [0, 5, 8]
    assert ragged.lengths == (5, 3)
    assert [t.dtype for t in (ragged.input_ids, ragged.token_type_ids, ragged.offsets)] == [torch.int64] * 3
    assert batch.rows == (2, 0)
    assert batch.target is not None
    assert batch.target.tolist() == [2, 0]


TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=3)


@given(
    st.integers(2, 3).flatmap(lambda sides: st.lists(st.tuples(*[TEXTS] * sides), min_size=1, max_size=8)),
    st.data(),
)
def test_a_text_is_held_once_and_found_wherever_it_stands(
    rows: list[tuple[list[int], ...]], data: st.DataObject
) -> None:
    held = encoded(*rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10))
    batch = held.get_batch(chosen, torch.tensor)
    texts = [part.tolist() for part in batch.ragged.input_ids.split(list(batch.ragged.lengths))]
    assert batch.pair_index is not None
    assert len({tuple(t) for t in texts}) == len(texts) == len({tuple(t) for r in chosen for t in rows[r]})
    for side, places in enumerate(batch.pair_index.text_index):
        assert [texts[p] for p in places.tolist()] == [list(rows[r][side]) for r in chosen]
    assert len(set(batch.pair_index.text_ids.tolist())) == len(texts)
    assert held.lengths.tolist() == [sum(map(len, row)) for row in rows]
    assert len(held.text_lengths) == len({tuple(t) for row in rows for t in row})


def test_passes_of_one_text_are_two_texts_of_one_identity() -> None:
    piece, other = Encoding([1, 2], [0, 0]), Encoding([3], [0])
    rows = EncodedDataset([EncodedExample((p, p), passes=True) for p in (piece, other, piece)])
    sides = rows.get_batch([0, 1, 2], torch.tensor).pair_index
    assert sides is not None
    first, second = (p.tolist() for p in sides.text_index)
    assert not set(first) & set(second)
    assert first[0] == first[2] != first[1]
    assert sides.text_ids[first].tolist() == sides.text_ids[second].tolist()


def test_a_part_of_a_ragged_batch_is_those_rows() -> None:
    ragged = encoded(([1, 2],), ([3],), ([4, 5, 6],)).get_batch([0, 1, 2], torch.tensor).ragged
    part = ragged.slice_rows(1, 3)
    assert (part.input_ids.tolist(), part.offsets.tolist(), part.lengths) == ([3, 4, 5, 6], [0, 1, 4], (1, 3))


def test_a_target_that_is_missing_leaves_the_batch_without() -> None:
    rows = encoded(([1],), ([2],), ([3],), targets=[0, None, 2])
    assert rows.get_batch([0, 1], torch.tensor).target is None
    target = rows.get_batch([2, 0], torch.tensor).target
    assert target is not None
    assert target.tolist() == [2, 0]


def test_targets_are_given_to_collate_in_order() -> None:
    rows = encoded(([1],), ([2],), ([3],), targets=[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    seen: list = []
    rows.get_batch([1, 2], lambda targets: seen.append(targets))
    assert seen == [[[0.0, 0.0], [1.0, 1.0]]]


def test_no_rows_at_all() -> None:
    rows = EncodedDataset([])
    assert len(rows) == 0
    assert rows.lengths.tolist() == []
    assert rows.diagnostics(1, 8) == []
    assert list(length_sorted_batches(rows.lengths, 10)) == []


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9), min_size=1, max_size=8), st.data()
)
def test_any_batch_is_what_the_rows_were(rows: list[list[int]], data: st.DataObject) -> None:
    held = encoded(*[(ids,) for ids in rows])
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10))
    ragged = held.get_batch(chosen, torch.tensor).ragged
    cuts = ragged.offsets.tolist()
    for place, row in enumerate(chosen):
        start, stop = cuts[place], cuts[place + 1]
        assert ragged.input_ids[start:stop].tolist() == rows[row]
        assert ragged.token_type_ids[start:stop].tolist() == [i % 2 for i in rows[row]]
        assert ragged.lengths[place] == len(rows[row])
    assert cuts[0] == 0
    assert cuts[-1] == len(ragged.input_ids) == len(ragged.token_type_ids)
    assert held.lengths.tolist() == [len(ids) for ids in rows]
    assert len(held) == len(rows)


def test_a_batch_on_another_device_is_the_same_batch() -> None:
    batch = encoded(([1, 2], [3]), targets=[1]).get_batch([0], torch.tensor)
    there = batch.to(torch.device("meta"))
    assert there.pair_index is not None
    held = (
        there.ragged.input_ids,
        there.ragged.token_type_ids,
        there.ragged.offsets,
        *there.pair_index.text_index,
        there.pair_index.text_ids,
    )
    assert all(t.device.type == "meta" for t in held)
    assert there.target is not None
    assert there.target.device.type == "meta"
    assert (there.rows, there.ragged.lengths) == (batch.rows, batch.ragged.lengths)
    assert encoded(([1],)).get_batch([0], torch.tensor).to(torch.device("meta")).target is None


def test_findings_say_how_much_was_cut() -> None:
    pieces = [Encoding([1] * 10, [0] * 10, cut) for cut in (0, 5, 25)]
    rows = EncodedDataset([EncodedExample((piece,)) for piece in pieces])
    assert rows.diagnostics(None, 10) == [
        "2 of 3 rows are longer than max_length 10 and were cut, 50.0% of all tokens"
    ]


def test_findings_count_the_cut_of_all_inputs_of_a_row_once() -> None:
    rows = EncodedDataset(
        [
            EncodedExample((Encoding([1] * 4, [0] * 4, 1), Encoding([1] * 4, [0] * 4, 1))),
            EncodedExample((Encoding([1], [0]), Encoding([1], [0]))),
        ]
    )
    assert rows.diagnostics(None, 4) == [
        "1 of 2 rows are longer than max_length 4 and were cut, 16.7% of all tokens"
    ]


@pytest.mark.parametrize(("unknown", "finding"), [(0, None), (2, None), (3, "3.0%"), (100, "100.0%")])
def test_findings_ask_about_the_language(unknown: int, finding: str | None) -> None:
    rows = encoded(([9] * unknown + [5] * (100 - unknown),))
    expected = (
        [f"{finding} of all tokens are unknown to this encoder's vocabulary; is it made for this language?"]
        if finding
        else []
    )
    assert rows.diagnostics(9, 512) == expected
    assert rows.diagnostics(None, 512) == []


def test_findings_look_at_every_input_and_report_both() -> None:
    rows = EncodedDataset([EncodedExample((Encoding([5] * 6, [0] * 6, 2), Encoding([9] * 2, [0] * 2)))])
    assert rows.diagnostics(9, 6) == [
        "1 of 1 rows are longer than max_length 6 and were cut, 20.0% of all tokens",
        "25.0% of all tokens are unknown to this encoder's vocabulary; is it made for this language?",
    ]


# ---------------------------------------------------------------- which rows come together


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_epoch_order_is_a_permutation_of_seed_and_epoch(num_rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_rows, seed, epoch)
    assert sorted(order.tolist()) == list(range(num_rows))
    assert order.dtype == np.int64
    assert np.array_equal(order, epoch_order(num_rows, seed, epoch))


def test_every_seed_and_every_epoch_has_its_own_order() -> None:
    orders = {
        (seed, epoch): tuple(epoch_order(30, seed, epoch).tolist()) for seed in range(8) for epoch in range(8)
    }
    assert len(set(orders.values())) == 64


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 70))
def test_num_batches_holds_every_row_and_no_batch_is_empty(num_rows: int, batch_size: int) -> None:
    batches = num_batches(num_rows, batch_size)
    assert batches * batch_size >= num_rows
    assert (batches - 1) * batch_size < num_rows


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 60), st.none() | st.integers(1, 100), st.integers(0, 9))
def test_micro_batches_are_a_partition_in_order_within_the_budget(
    lengths: list[int], parts: int, most: int | None, seed: int
) -> None:
    rows = epoch_order(len(lengths), seed, 0).tolist()[: max(1, len(lengths) // 2)]
    cut = micro_batches(rows, np.array(lengths), parts, most)
    assert [row for part in cut for row in part] == rows
    assert all(cut)
    assert len(cut) >= min(parts, len(rows))
    if most is None:
        sizes = [len(part) for part in cut]
        assert len(cut) == min(parts, len(rows))
        assert max(sizes) - min(sizes) <= 1
    else:
        assert all(len(part) == 1 or sum(lengths[row] for row in part) <= most for part in cut)
    assert all(type(row) is int for part in cut for row in part)


@pytest.mark.parametrize(
    ("lengths", "parts", "most", "cut"),
    [
        ([5] * 5, 2, None, [[0, 1, 2], [3, 4]]),
        ([5] * 3, 9, None, [[0], [1], [2]]),
        ([5] * 4, 1, 10, [[0, 1], [2, 3]]),  # exactly the budget is allowed
        ([5] * 4, 1, 9, [[0], [1], [2], [3]]),
        ([50, 1, 1, 50], 1, 10, [[0], [1, 2], [3]]),  # a row is never cut
        ([5] * 6, 2, 10, [[0, 1], [2], [3, 4], [5]]),  # parts first, then the budget inside each
    ],
)
def test_micro_batches(lengths: list[int], parts: int, most: int | None, cut: list[list[int]]) -> None:
    assert micro_batches(range(len(lengths)), np.array(lengths), parts, most) == cut


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 100), st.integers(1, 12))
def test_by_length_gives_every_row_once_longest_first_within_both_limits(
    lengths: list[int], most: int, max_rows: int
) -> None:
    batches = list(length_sorted_batches(np.array(lengths), most, max_rows))
    flat = [row for batch in batches for row in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[row] for row in flat] == sorted(lengths, reverse=True)
    assert all(batches)
    assert all(len(batch) <= max_rows for batch in batches)
    assert all(len(batch) == 1 or sum(lengths[row] for row in batch) <= most for batch in batches)
    for batch, following in pairwise(batches):  # as full as it could be
        assert len(batch) == max_rows or sum(lengths[row] for row in batch) + lengths[following[0]] > most


def test_by_length_keeps_rows_of_equal_length_in_order() -> None:
    assert list(length_sorted_batches(np.array([2, 3, 2, 3, 2]), 6)) == [[1, 3], [0, 2, 4]]


@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=9), min_size=2, max_size=2),
        min_size=1,
        max_size=8,
    )
)
def test_used_ids_are_those_of_every_input(rows):
    encoded = EncodedDataset(
        [EncodedExample(tuple(Encoding(ids, [0] * len(ids)) for ids in row)) for row in rows]
    )
    assert encoded.used_ids().tolist() == sorted({token for row in rows for ids in row for token in ids})
    assert encoded.used_ids().dtype == np.int64
