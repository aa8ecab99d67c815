"""Packing texts into rows drops nothing, doubles nothing and mixes nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertune.tasks.base.packing import (
    Frame,
    Pieces,
    best_fit,
    frame_windows,
    pack_joined,
    pack_separate,
    split_pieces,
    unframe,
)

FRAME = Frame([101], [102], 0, 12)
IDS = st.lists(st.integers(1000, 1050), min_size=1, max_size=40)


def pieces_of(ids, *, starts: bool = False, pinyin: bool = False) -> Pieces:
    array = np.array(ids, np.int64)
    return Pieces(array, array % 3 == 0 if starts else None, array * 7 if pinyin else None)


def windows_of(texts, **more):
    return [split_pieces(pieces_of(ids, **more), FRAME.room) for ids in texts]


def contents(windows) -> list[tuple[int, ...]]:
    return [tuple(window.ids.tolist()) for window in windows]


@given(st.lists(st.integers(1, 30), max_size=60))
def test_best_fit_places_everything_once_within_the_capacity(sizes):
    rows = best_fit(sizes, 30)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    filled = [sum(sizes[number] for number in row) for row in rows]
    assert all(0 < total <= 30 for total in filled)
    assert sum(2 * total <= 30 for total in filled) <= 1  # two rows that are half empty would have been one


@given(st.lists(IDS, min_size=1, max_size=12), st.booleans(), st.booleans())
def test_separate_rows_hold_every_window_once(texts, starts, pinyin):
    windows = [w for text in windows_of(texts, starts=starts, pinyin=pinyin) for w in text]
    rows = pack_separate(windows, FRAME)
    assert all(len(row.inputs[0].input_ids) <= FRAME.max_length for row in rows)
    found = [window for row in rows for window in unframe(row, FRAME)]
    assert Counter(contents(found)) == Counter(contents(windows))
    for window in found:
        assert (window.word_starts is not None) == starts
        if starts:
            assert window.word_starts.tolist() == (window.ids % 3 == 0).tolist()
        assert (window.pinyin_ids is not None) == pinyin
        if pinyin:
            assert window.pinyin_ids.tolist() == (window.ids * 7).tolist()


@given(st.lists(IDS, min_size=1, max_size=12), st.booleans(), st.booleans())
def test_joined_rows_are_the_texts_one_after_the_other(texts, starts, pinyin):
    rows = pack_joined(windows_of(texts, starts=starts, pinyin=pinyin), FRAME)
    windows = [window for row in rows for window in unframe(row, FRAME)]
    assert all(len(window) == FRAME.room for window in windows[:-1])
    joined = [number for window in windows for number in window.ids.tolist()]
    expected = [number for ids in texts for number in [*ids, 102]][:-1]
    assert joined == expected


@given(st.lists(IDS, min_size=1, max_size=4))
def test_windows_of_a_row_are_found_again(texts):
    windows = [w for text in windows_of(texts) for w in text]
    row = frame_windows(windows, FRAME, [len(text) for text in windows_of(texts)])
    assert contents(unframe(row, FRAME)) == contents(windows)
    assert sum(row.context) == len(windows)
    assert sum(row.inputs[0].window_lengths) == len(row.inputs[0].input_ids)


def test_special_tokens_stand_around_each_window_and_begin_words():
    row = frame_windows([pieces_of([3, 4], starts=True), pieces_of([5], starts=True)], FRAME)
    encoding = row.inputs[0]
    assert list(encoding.input_ids) == [101, 3, 4, 102, 101, 5, 102]
    assert list(encoding.window_lengths) == [4, 3]
    assert list(encoding.word_positions) == [0, 1, 3, 4, 6]  # 5 goes on with the word before it
    assert set(encoding.token_type_ids) == {0}


def test_a_text_without_tokens_is_one_empty_window():
    assert contents(split_pieces(pieces_of([]), FRAME.room)) == [()]
    assert pack_joined([], FRAME) == []
