"""Dev sets and subsets, drawn by label and by seed. A row costs a few numbers, so millions of rows fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def factorize(keys: Iterable[Hashable]) -> IntArray:
    """Return a number for each key: equal keys share one, in order of first appearance.

    >>> factorize(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(key, len(seen)) for key in keys), np.int64)


def stratified_sample(keys: Sequence[Hashable] | IntArray, count: int, seed: int) -> list[int]:
    """Draw `count` rows so that each key keeps its share, as nearly as whole rows allow.

    Args:
        keys: one key a row, such as its label; or the numbers that `factorize` returns.
        count: how many rows to draw; all if there are fewer.
        seed: the same seed draws the same rows.

    Returns:
        The indices of the drawn rows, ascending.

    >>> keys = ["a"] * 6 + ["b"] * 3
    >>> [keys[i] for i in stratified_sample(keys, 3, seed=0)]
    ['a', 'a', 'b']
    """
    codes = keys if isinstance(keys, np.ndarray) else factorize(keys)
    rows: list[int] = stratified_sample_codes(codes, count, seed).tolist()
    return rows


def stratified_sample_codes(keys: IntArray, count: int, seed: int) -> IntArray:
    """Draw rows as `stratified_sample` does, for numbers as keys.

    Args:
        keys: (rows,), from 0; every number up to the highest occurs.
        count: how many rows to draw.
        seed: the same seed draws the same rows.

    Returns:
        The indices of the drawn rows, ascending, as an array.
    """
    if count >= len(keys):
        return np.arange(len(keys))
    groups = np.split(np.argsort(keys, kind="stable"), np.cumsum(np.bincount(keys))[:-1])
    random = np.random.default_rng(seed)
    members = [random.permutation(group) for group in groups]
    # Largest remainder: round down, then add a row where rounding took the most; chance breaks ties.
    exact = np.array([len(m) * count / len(keys) for m in members])
    taken = np.floor(exact).astype(int)
    order = np.lexsort((random.random(len(members)), -(exact - taken)))
    taken[order[: count - int(taken.sum())]] += 1
    return np.sort(np.concatenate([m[:k] for m, k in zip(members, taken, strict=True)]))


def train_dev_split(
    texts: Sequence[Hashable], keys: Sequence[Hashable], dev_fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split rows into (train, dev). Rows of equal text go to one side, so that no training text is in dev.

    Args:
        texts: one text a row.
        keys: one key a row, such as its label; each keeps its share on both sides.
        dev_fraction: the fraction of the texts that goes to dev; each side gets at least one text.
        seed: the same seed gives the same split.

    Returns:
        Two lists of row indices, ascending; together they hold every row once.
    """
    train, dev = train_dev_split_codes(factorize(texts), factorize(keys), dev_fraction, seed)
    return train.tolist(), dev.tolist()


def train_dev_split_codes(
    texts: IntArray, keys: IntArray, dev_fraction: float, seed: int
) -> tuple[IntArray, IntArray]:
    """Split rows as `train_dev_split` does, for numbers as texts and keys; return arrays."""
    firsts = np.unique(texts, return_index=True)[1]  # the first row of each text
    count = min(max(1, round(len(firsts) * dev_fraction)), max(1, len(firsts) - 1))
    chosen = stratified_sample_codes(factorize(keys[firsts].tolist()), count, seed)
    is_dev = np.isin(texts, chosen)
    return np.flatnonzero(~is_dev), np.flatnonzero(is_dev)


class LabelledRows:
    """The labels of rows, by the group that a row belongs to: all rows of a group have the same labels.

    Args:
        keys: the group of each row, as `Task.stratify_key` returns it; "" is a row without labels.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        seen: dict[str, int] = {}
        self.groups: IntArray = np.fromiter((seen.setdefault(key, len(seen)) for key in keys), np.int64)
        """(rows,), as `factorize` numbers the keys."""
        numbers: dict[str, int] = {}
        self._labels_of_group = [
            [numbers.setdefault(label, len(numbers)) for label in key.split("\0")] if key else []
            for key in seen
        ]
        self.names = list(numbers)
        """Every label, in order of first appearance."""

    def count(self, rows: IntArray | npt.NDArray[np.bool_]) -> IntArray:
        """Return how many of these rows have each label."""
        counts = np.zeros(len(self.names), np.int64)
        of_group = np.bincount(self.groups[rows], minlength=len(self._labels_of_group))
        for group in np.flatnonzero(of_group).tolist():
            counts[self._labels_of_group[group]] += of_group[group]
        return counts

    def lost(self, is_kept: npt.NDArray[np.bool_]) -> list[str]:
        """Return the labels that rows have, but none of the kept rows."""
        return [self.names[i] for i in np.flatnonzero(self.count(is_kept) == 0).tolist()]

    def cover(
        self, is_kept: npt.NDArray[np.bool_], texts: IntArray, seed: int, *, min_left: int
    ) -> npt.NDArray[np.bool_]:
        """Exchange rows so that the kept ones have every label, where that is possible.

        Where they have every label already, nothing changes.

        Args:
            is_kept: (rows,) the rows that are kept, such as for training.
            texts: (rows,) the text of each row; rows of one text go together.
            seed: decides which texts are left out in exchange.
            min_left: a text may be kept without another that is left out in exchange, while so many rows
                are left.
        """
        if not self.lost(is_kept):
            return is_kept
        is_kept = is_kept.copy()
        counts = self.count(is_kept).tolist()
        num_left = int(np.count_nonzero(~is_kept))
        order = np.argsort(texts, kind="stable")
        ordered = texts[order]

        def rows_of(text: int) -> IntArray:
            start, stop = np.searchsorted(ordered, [text, text + 1])
            return order[start:stop]

        spare = iter(np.random.default_rng(seed).permutation(np.unique(texts[is_kept])).tolist())
        for row in np.flatnonzero(~is_kept).tolist():
            if is_kept[row] or all(counts[label] for label in self._labels_of([row])):
                continue
            added = rows_of(int(texts[row]))
            for label, count in self._labels_of(added).items():
                counts[label] += count
            removed = next((rows for t in spare if self._are_spare(rows := rows_of(t), counts)), None)
            if removed is None and num_left - len(added) < min_left:
                for label, count in self._labels_of(added).items():
                    counts[label] -= count
                continue
            is_kept[added] = True
            num_left -= len(added)
            if removed is not None:
                is_kept[removed] = False
                num_left += len(removed)
                for label, count in self._labels_of(removed).items():
                    counts[label] -= count
        return is_kept

    def _labels_of(self, rows: Iterable[int]) -> Counter[int]:
        """Return how many of a few rows have each label."""
        return Counter(label for row in rows for label in self._labels_of_group[self.groups[row]])

    def _are_spare(self, rows: IntArray, counts: Sequence[int]) -> bool:
        """Tell whether each label of these rows has other rows."""
        return all(counts[label] > count for label, count in self._labels_of(rows).items())


def factorize_digests(digests: npt.NDArray[np.uint64]) -> IntArray:
    """Return a number for each text: equal texts share one, in order of first appearance.

    Args:
        digests: (rows, 2), 128 bits a text; two of 10^12 different texts share them with probability 1e-15.

    >>> factorize_digests(np.array([[3, 1], [2, 9], [3, 1]], np.uint64)).tolist()
    [0, 1, 0]
    """
    small = min_int_type(len(digests))
    # The sort is stable, so the first row of each text comes first.
    order = np.lexsort((digests[:, 1], digests[:, 0])).astype(small)
    begins = np.ones(len(order), bool)
    for half in (0, 1):
        ordered = digests[order, half]
        differs = ordered[1:] != ordered[:-1]
        begins[1:] = differs if half == 0 else begins[1:] | differs
    firsts = order[begins]
    rank = np.empty(len(firsts), small)
    rank[np.argsort(firsts)] = np.arange(len(firsts), dtype=small)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = rank[np.cumsum(begins, dtype=small) - 1]
    return numbers


def min_int_type(count: int) -> type[np.signedinteger[Any]]:
    """Return the smaller of int32 and int64 that holds all numbers below `count`."""
    return np.int32 if count < 1 << 31 else np.int64
