"""Which rows form a batch, a micro-batch, and the share of a process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from bertune.data.dataset import IntArray


def epoch_order(num_rows: int, seed: int, epoch: int) -> IntArray:
    """Return the order of rows in an epoch. Seed and epoch decide it; a resumed run needs only a position."""
    return np.random.default_rng((seed, epoch)).permutation(num_rows)


def num_batches(num_rows: int, batch_size: int) -> int:
    """Return how many batches hold every row once; the last one may be smaller.

    >>> num_batches(10, 4)
    3
    """
    return -(-num_rows // batch_size)


def micro_batches(
    rows: Sequence[int], lengths: IntArray, num_parts: int, max_tokens: int | None
) -> list[list[int]]:
    """Split the rows of one batch, in their order, into micro-batches.

    Args:
        rows: row numbers of the data set.
        lengths: (rows of the data set,), tokens of each.
        num_parts: the least number of micro-batches; their numbers of rows differ by at most one.
        max_tokens: a micro-batch with more tokens is split further; a row is never split.

    >>> micro_batches([0, 1, 2, 3], np.array([5, 5, 5, 5]), 2, None)
    [[0, 1], [2, 3]]
    >>> micro_batches([0, 1, 2], np.array([5, 5, 5]), 1, 11)
    [[0, 1], [2]]
    """
    result: list[list[int]] = []
    for part in np.array_split(np.asarray(rows), min(num_parts, len(rows))):
        current: list[int] = []
        tokens = 0
        for row in part.tolist():
            if current and max_tokens is not None and tokens + int(lengths[row]) > max_tokens:
                result.append(current)
                current, tokens = [], 0
            current.append(row)
            tokens += int(lengths[row])
        result.append(current)
    return result


def process_shares(rows: Sequence[int], lengths: IntArray, num_shares: int) -> list[list[int]]:
    """Share the rows of a batch among processes so that each has about as many tokens; their order stays.

    Args:
        rows: row numbers of the data set.
        lengths: (rows of the data set,), tokens of each.
        num_shares: the number of processes; with fewer rows than that, some shares are empty.

    >>> process_shares([3, 0, 1, 2], np.array([9, 1, 5, 4]), 2)
    [[0, 1], [3, 2]]
    """
    if num_shares == 1:
        return [list(rows)]
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    tokens = [0] * num_shares
    for index in sorted(range(len(rows)), key=lambda n: -int(lengths[rows[n]])):
        smallest = min(range(num_shares), key=tokens.__getitem__)
        shares[smallest].append(index)
        tokens[smallest] += int(lengths[rows[index]])
    return [[rows[index] for index in sorted(share)] for share in shares]


def length_sorted_batches(lengths: IntArray, max_tokens: int, max_rows: int = 256) -> Iterator[list[int]]:
    """Yield every row once in batches of similar length, the longest first, for evaluation and inference.

    Args:
        lengths: (rows,), tokens of each.
        max_tokens: most tokens of a batch of several rows.
        max_rows: most rows of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    chunks = (order[n : n + 4096].tolist() for n in range(0, len(order), 4096))  # few Python integers at once
    batch: list[int] = []
    tokens = 0
    for row in itertools.chain.from_iterable(chunks):
        if batch and (tokens + int(lengths[row]) > max_tokens or len(batch) == max_rows):
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += int(lengths[row])
    if batch:
        yield batch
