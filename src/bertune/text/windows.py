"""Long texts in overlapping windows: which tokens each window has, and which window speaks for which word.

Merge rule: a word is read in the window in which it stands farthest from a cut, so each word counts exactly once, in training and in
prediction alike; the ends of the text are no cuts. Equally far: the earlier window.
"""

from __future__ import annotations

from collections.abc import Sequence


def split_windows(word_lengths: Sequence[int], max_tokens: int, overlap: int) -> list[tuple[int, int]]:
    """Return the windows of a text as ranges of its words.

    Args:
        word_lengths: tokens of each word, at least 1 and at most `max_tokens`.
        max_tokens: most tokens of a window.
        overlap: tokens that neighbours should share, as far as whole words allow; the last window is as full as the others.

    >>> split_windows([1] * 10, 4, 2)
    [(0, 4), (2, 6), (4, 8), (6, 10)]
    >>> split_windows([1, 1, 1], 4, 2)
    [(0, 3)]
    """
    total = len(word_lengths)
    found: list[tuple[int, int]] = []
    start = 0
    while True:
        stop, tokens = start, 0
        while stop < total and tokens + word_lengths[stop] <= max_tokens:
            tokens += word_lengths[stop]
            stop += 1
        if stop == total:
            return [*found, (_earliest(word_lengths, total, max_tokens), total)]
        found.append((start, stop))
        following, shared = stop, 0
        while following - 1 > start and shared + word_lengths[following - 1] <= overlap:
            following -= 1
            shared += word_lengths[following]
        while (
            shared + word_lengths[stop] > max_tokens
        ):  # a long word comes: a window must have a word that the one before lacks
            shared -= word_lengths[following]
            following += 1
        start = following


def _earliest(sizes: Sequence[int], stop: int, room: int) -> int:
    start, tokens = stop, 0
    while start > 0 and tokens + sizes[start - 1] <= room:
        start -= 1
        tokens += sizes[start]
    return start


def assign_words(windows: Sequence[tuple[int, int]], num_words: int) -> list[int]:
    """Return the window that speaks for each word.

    >>> assign_words([(0, 4), (2, 6)], 6)
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
