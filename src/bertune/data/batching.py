"""Which rows make a batch, a micro-batch, and the share of a process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from bertune.data.dataset import IntArray


def epoch_order(num_rows: int, seed: int, epoch: int) -> IntArray:
    """Return the order of rows in an epoch: a function of seed and epoch, so a position in it is a whole state."""
    return np.random.default_rng((seed, epoch)).permutation(num_rows)


def num_batches(num_rows: int, batch_size: int) -> int:
    """Return how many batches hold every row once; the last may be short, none is dropped.

    >>> num_batches(10, 4)
    3
    """
    return -(-num_rows // batch_size)


def micro_batches(
    rows: Sequence[int], lengths: IntArray, num_parts: int, max_tokens: int | None
) -> list[list[int]]:
    """Cut the rows of one batch, in their order, into micro-batches.

    Args:
        rows: places in the data set.
        lengths: tokens of every row of the data set.
        num_parts: into how many micro-batches at least, as even as rows allow.
        max_tokens: a part with more tokens than this is cut further; a row is never cut.

    >>> micro_batches([0, 1, 2, 3], np.array([5, 5, 5, 5]), 2, None)
    [[0, 1], [2, 3]]
    >>> micro_batches([0, 1, 2], np.array([5, 5, 5]), 1, 11)
    [[0, 1], [2]]
    """
    result: list[list[int]] = []
    for part in np.array_split(np.asarray(rows), min(num_parts, len(rows))):
        held: list[int] = []
        tokens = 0
        for row in part.tolist():
            if held and max_tokens is not None and tokens + int(lengths[row]) > max_tokens:
                result.append(held)
                held, tokens = [], 0
            held.append(row)
            tokens += int(lengths[row])
        result.append(held)
    return result


def process_shares(rows: Sequence[int], lengths: IntArray, num_shares: int) -> list[list[int]]:
    """Deal the rows of a batch out to processes so that each has about as many tokens; their order stays.

    Args:
        rows: places in the data set.
        lengths: tokens of every row of the data set.
        num_shares: how many shares; some are empty where there are fewer rows.

    >>> process_shares([3, 0, 1, 2], np.array([9, 1, 5, 4]), 2)
    [[0, 1], [3, 2]]
    """
    if num_shares == 1:
        return [list(rows)]
    dealt: list[list[int]] = [[] for _ in range(num_shares)]
    tokens = [0] * num_shares
    for place in sorted(range(len(rows)), key=lambda n: -int(lengths[rows[n]])):
        lightest = min(range(num_shares), key=tokens.__getitem__)
        dealt[lightest].append(place)
        tokens[lightest] += int(lengths[rows[place]])
    return [[rows[place] for place in sorted(part)] for part in dealt]


def length_sorted_batches(lengths: IntArray, max_tokens: int, max_rows: int = 256) -> Iterator[list[int]]:
    """Yield every row once in batches of similar length, the longest first, for work whose order does not matter."""
    order = np.argsort(-lengths, kind="stable")
    held: list[int] = []
    tokens = 0
    for row in itertools.chain.from_iterable(
        order[n : n + 4096].tolist() for n in range(0, len(order), 4096)
    ):
        if held and (tokens + int(lengths[row]) > max_tokens or len(held) == max_rows):
            yield held
            held, tokens = [], 0
        held.append(row)
        tokens += int(lengths[row])
    if held:
        yield held
