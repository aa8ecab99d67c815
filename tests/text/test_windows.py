"""Windows have every word, never too many tokens, and a word is read where it is farthest from a cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertune.text.windows import assign_words, split_windows


@st.composite
def texts(draw):
    room = draw(st.integers(1, 20))
    sizes = draw(st.lists(st.integers(1, room) | st.just(1), max_size=60))
    return sizes, room, draw(st.integers(0, room - 1))


@settings(max_examples=300)
@given(texts())
def test_every_word_is_in_full_windows_that_stand_in_order(text):
    sizes, room, overlap = text
    windows = split_windows(sizes, room, overlap)
    assert {word for window in windows for word in range(*window)} == set(range(len(sizes)))
    assert all(sum(sizes[start:stop]) <= room for start, stop in windows)
    assert (windows[0][0], windows[-1][1]) == (0, len(sizes))
    for (start, stop), (following, end) in itertools.pairwise(windows):
        assert start < following <= stop <= end
        assert sum(sizes[start : stop + 1]) > room  # none could hold a word more
    start, stop = windows[-1]
    assert start == 0 or sum(sizes[start - 1 : stop]) > room
    if sum(sizes) <= room:
        assert windows == [(0, len(sizes))]


@settings(max_examples=300)
@given(texts())
def test_every_window_has_a_word_that_the_one_before_lacks(text):
    windows = split_windows(*text)
    assert all(stop < end for (_, stop), (_, end) in itertools.pairwise(windows))


def test_a_word_as_long_as_a_window_costs_one_window():
    assert split_windows([1] * 14 + [14], 14, 7) == [(0, 14), (14, 15)]


@settings(max_examples=300)
@given(texts())
def test_neighbours_share_what_they_should(text):
    sizes, room, overlap = text
    windows = split_windows(sizes, room, overlap)
    for (start, stop), (following, _) in itertools.pairwise(windows[:-1]):
        assert sum(sizes[following:stop]) <= overlap
        if (
            following - 1 > start and sum(sizes[following - 1 : stop]) <= overlap
        ):  # a word more would leave no room for a new one
            assert sum(sizes[following - 1 : stop + 1]) > room
    if len(windows) > 1:  # the last one shares more where it would be less full
        (start, stop), (last, _) = windows[-2:]
        assert start < last
        assert sum(sizes[last - 1 :]) > room


@settings(max_examples=300)
@given(texts())
def test_each_word_is_read_once_and_farthest_from_a_cut(text):
    sizes, room, overlap = text
    windows = split_windows(sizes, room, overlap)
    chosen = assign_words(windows, len(sizes))
    assert len(chosen) == len(sizes)
    assert chosen == sorted(chosen)  # so the words of a text stay in order

    def distance(number, word):
        """Words between this one and the nearest cut; the ends of the text are none."""
        start, stop = windows[number]
        cuts = ([word - start] if start else []) + ([stop - 1 - word] if stop < len(sizes) else [])
        return min(cuts, default=len(sizes))

    for word, number in enumerate(chosen):
        holding = [n for n, (start, stop) in enumerate(windows) if start <= word < stop]
        assert number in holding
        assert distance(number, word) == max(distance(n, word) for n in holding)
        assert number == next(n for n in holding if distance(n, word) == distance(number, word))


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_what_fits_exactly_is_one_window(overlap):
    assert split_windows([1, 2, 1], 4, overlap) == [(0, 3)]
    assert split_windows([4], 4, overlap) == [(0, 1)]
    assert len(split_windows([1, 2, 1, 1], 4, overlap)) == 2


def test_ends():
    assert split_windows([], 4, 2) == [(0, 0)]
    assert assign_words([(0, 0)], 0) == []
    assert split_windows([1] * 6, 4, 0) == [(0, 4), (2, 6)]  # the last one is as full as the others
    assert assign_words([(0, 4), (2, 6)], 6) == [0, 0, 0, 1, 1, 1]
    assert split_windows([3] * 3, 4, 3) == [(0, 1), (1, 2), (2, 3)]
    assert split_windows([1] * 5, 4, 3) == [(0, 4), (1, 5)]
