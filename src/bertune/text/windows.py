"""Long texts in overlapping windows: which tokens each window has, and which window speaks for which word.

Merge rule: a word is read in the window in which it stands farthest from a cut, so each word counts exactly once, in training and in
prediction alike; the ends of the text are no cuts. Equally far: the earlier window.
"""

from __future__ import annotations

from collections.abc import Sequence


def windows_of(sizes: Sequence[int], room: int, overlap: int) -> list[tuple[int, int]]:
    """Return the windows of a text as ranges of its words.

    Args:
        sizes: tokens of each word, at least 1 and at most `room`.
        room: most tokens of a window.
        overlap: tokens that neighbours should share, as far as whole words allow; the last window is as full as the others.

    >>> windows_of([1] * 10, 4, 2)
    [(0, 4), (2, 6), (4, 8), (6, 10)]
    >>> windows_of([1, 1, 1], 4, 2)
    [(0, 3)]
    """
    total = len(sizes)
    found: list[tuple[int, int]] = []
    start = 0
    while True:
        stop, tokens = start, 0
        while stop < total and tokens + sizes[stop] <= room:
            tokens += sizes[stop]
            stop += 1
        if stop == total:
            return [*found, (_earliest(sizes, total, room), total)]
        found.append((start, stop))
        following, shared = stop, 0
        while following - 1 > start and shared + sizes[following - 1] <= overlap:
            following -= 1
            shared += sizes[following]
        while shared + sizes[stop] > room:  # a long word comes: a window must have a word that the one before lacks
            shared -= sizes[following]
            following += 1
        start = following


def _earliest(sizes: Sequence[int], stop: int, room: int) -> int:
    start, tokens = stop, 0
    while start > 0 and tokens + sizes[start - 1] <= room:
        start -= 1
        tokens += sizes[start]
    return start


def speakers(windows: Sequence[tuple[int, int]], num_words: int) -> list[int]:
    """Return the window that speaks for each word.

    >>> speakers([(0, 4), (2, 6)], 6)
    [0, 0, 0, 1, 1, 1]
    """
    chosen = [0] * num_words
    best = [-1] * num_words
    for number, (start, stop) in enumerate(windows):
        for word in range(start, stop):
            left = num_words if start == 0 else word - start
            right = num_words if stop == num_words else stop - 1 - word
            if min(left, right) > best[word]:
                best[word], chosen[word] = min(left, right), number
    return chosen
