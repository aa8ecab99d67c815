"""Long texts in overlapping windows: which words each window has, and which window represents which word.

Merge rule: a word is represented by the window in which it is farthest from a cut, so each word counts
exactly once, in training and in prediction. The ends of the text are no cuts. Among equals the earlier window
wins.
"""

from __future__ import annotations

from collections.abc import Sequence


def split_windows(word_lengths: Sequence[int], max_tokens: int, overlap: int) -> list[tuple[int, int]]:
    """Return the windows of a text as ranges of its words.

    Args:
        word_lengths: tokens of each word, at least 1 and at most `max_tokens`.
        max_tokens: most tokens of a window.
        overlap: tokens that neighbours share, as far as whole words allow. The last window is as full as the
            others.

    >>> split_windows([1] * 10, 4, 2)
    [(0, 4), (2, 6), (4, 8), (6, 10)]
    >>> split_windows([1, 1, 1], 4, 2)
    [(0, 3)]
    """
    total = len(word_lengths)
    windows: list[tuple[int, int]] = []
    start = 0
    while True:
        stop, tokens = start, 0
        while stop < total and tokens + word_lengths[stop] <= max_tokens:
            tokens += word_lengths[stop]
            stop += 1
        if stop == total:
            return [*windows, (_earliest_start(word_lengths, max_tokens), total)]
        windows.append((start, stop))
        following, shared = stop, 0
        while following - 1 > start and shared + word_lengths[following - 1] <= overlap:
            following -= 1
            shared += word_lengths[following]
        # Before a long word, share less: a window must have a word that the one before it lacks.
        while shared + word_lengths[stop] > max_tokens:
            shared -= word_lengths[following]
            following += 1
        start = following


def _earliest_start(word_lengths: Sequence[int], max_tokens: int) -> int:
    """Return the first word of the longest window that ends with the text."""
    start, tokens = len(word_lengths), 0
    while start > 0 and tokens + word_lengths[start - 1] <= max_tokens:
        start -= 1
        tokens += word_lengths[start]
    return start


def assign_words(windows: Sequence[tuple[int, int]], num_words: int) -> list[int]:
    """Return the window that represents each word.

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
