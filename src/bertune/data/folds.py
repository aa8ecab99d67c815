"""Folds of rows: by label, with rows that belong together in one fold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from bertune.data.split import IntArray, factorize
from bertune.errors import DataError

Floats = npt.NDArray[np.float64]


def tie_rows(texts: IntArray, groups: IntArray | None = None) -> IntArray:
    """Return a number for each row: rows that must stay together share one.

    Rows of equal text belong together, and so do rows of one group, and whatever these tie together in turn.

    Args:
        texts: (rows,) the number of each row's text.
        groups: (rows,) the number of its group.

    >>> tie_rows(np.array([0, 1, 0, 2]), np.array([5, 5, 6, 7])).tolist()
    [0, 0, 0, 1]
    """
    if groups is None:
        return factorize(texts.tolist())
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    text_nodes, group_nodes = (np.unique(codes, return_inverse=True)[1] for codes in (texts, groups))
    num_texts = int(text_nodes.max()) + 1
    num_nodes = num_texts + int(group_nodes.max()) + 1
    edges = (np.ones(len(texts), np.int8), (text_nodes, group_nodes + num_texts))
    _, component = connected_components(coo_matrix(edges, shape=(num_nodes, num_nodes)), directed=False)
    return factorize(component[text_nodes].tolist())


def make_folds(
    strata: Sequence[Hashable] | IntArray,
    texts: IntArray,
    groups: IntArray | None,
    num_folds: int,
    seed: int,
) -> IntArray:
    """Return the fold of each row, from 0; every row is in exactly one, and no fold is empty.

    Rows of equal text, and rows of one group, are in one fold. The number of rows of each stratum is as equal
    over the folds as that allows; where no rows are tied together, it differs by at most 1, and so does the
    size of the folds. Large ties are placed first, each where its strata have the fewest rows so far; smaller
    ones fill up what those left uneven.

    Args:
        strata: (rows,) the stratum of each row, such as its label.
        texts: (rows,) the number of each row's text.
        groups: (rows,) the number of its group; None where there are none.
        num_folds: at least 2.
        seed: the same seed gives the same folds.

    Raises:
        DataError: there are fewer different texts or groups than folds.
    """
    ties = tie_rows(texts, groups)
    num_ties = int(ties.max()) + 1
    if num_ties < num_folds:
        raise DataError(f"{num_ties} different texts or groups cannot be divided into {num_folds} folds")
    # Strata in sorted order, so that combinations of labels which begin alike are dealt one after the other.
    stratum = np.unique(
        strata if isinstance(strata, np.ndarray) else np.array(list(strata), str), return_inverse=True
    )[1]
    dealer = _Dealer(num_folds, np.bincount(stratum), np.random.default_rng(seed))
    fold_of_tie = np.empty(num_ties, np.int64)
    for members, own_strata, counts in _alike(ties, stratum, dealer.random):
        fold_of_tie[dealer.random.permutation(members)] = dealer.deal(len(members), own_strata, counts)
    return fold_of_tie[ties]


def _alike(
    ties: IntArray, stratum: IntArray, random: np.random.Generator
) -> list[tuple[IntArray, IntArray, IntArray]]:
    """Return the ties in sets that have the same number of rows of each stratum, the largest ties first.

    Returns:
        For each set: its ties, the strata of one of them, and its rows of each of these.
    """
    num_strata = int(stratum.max()) + 1
    pairs, counts = np.unique(ties * num_strata + stratum, return_counts=True)
    tie_of_pair, stratum_of_pair = np.divmod(pairs, num_strata)
    starts = np.flatnonzero(np.diff(tie_of_pair, prepend=-1))
    ends = np.append(starts[1:], len(pairs))
    kinds = np.unique(stratum_of_pair * (int(counts.max()) + 1) + counts, return_inverse=True)[1]
    # 63 random bits for each kind of pair; their sum tells ties apart.
    hashes = random.integers(1, 1 << 63, int(kinds.max()) + 1, np.uint64)
    with np.errstate(over="ignore"):
        signatures = np.add.reduceat(hashes[kinds], starts)
    _, firsts, which = np.unique(signatures, return_index=True, return_inverse=True)
    sizes = np.bincount(ties)[firsts]
    members = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    strata = [stratum_of_pair[starts[tie] : ends[tie]] for tie in firsts.tolist()]
    # Equal sizes: few strata first, since these are the easiest to keep even; then in order of strata.
    order = sorted(range(len(firsts)), key=lambda n: (-sizes[n], len(strata[n]), strata[n].tolist()))
    return [(members[n], strata[n], counts[starts[t] : ends[t]]) for n in order if (t := firsts[n]) >= 0]


class _Dealer:
    """Places ties in folds, one set of equal ones after the other.

    Args:
        num_folds: how many folds there are.
        totals: (strata,) all rows of each stratum.
        random: decides between folds that are equal.
    """

    def __init__(self, num_folds: int, totals: IntArray, random: np.random.Generator) -> None:
        self.random = random
        self._weights = 1.0 / np.maximum(totals, 1) ** 2.0
        self._rows: Floats = np.zeros((num_folds, len(totals)))
        self._sizes: Floats = np.zeros(num_folds)

    def deal(self, count: int, strata: IntArray, rows: IntArray) -> IntArray:
        """Return the fold of each of `count` equal ties.

        A tie adds to a fold the sum over strata of rows there times rows of the tie, over the square of all
        rows: the growth of the strata's variance between folds. Each further tie of the set adds the same, so
        the folds fill up like vessels.

        Args:
            count: how many there are.
            strata: the strata of one of them.
            rows: its rows of each of these.
        """
        weighted = rows * self._weights[strata]
        level = self._rows[:, strata] @ weighted
        step = float(rows @ weighted)
        taken = _fill(level, step, count)
        left = count - int(taken.sum())
        tie_breaker = self.random.random(len(level))
        while left:  # fewer than there are folds, nearly always once
            cost = np.round((level + taken * step) / step, 9)
            first = np.lexsort((tie_breaker, self._sizes + taken * rows.sum(), cost))
            chosen = first[cost[first] <= cost[first[0]] + 1e-9][:left]
            taken[chosen] += 1
            left -= len(chosen)
        self._rows[:, strata] += taken[:, None] * rows
        self._sizes += taken * rows.sum()
        return np.repeat(np.arange(len(taken)), taken)


def _fill(level: Floats, step: float, count: int) -> IntArray:
    """Return how many of `count` equal steps each vessel takes when the lowest gets the next.

    The last ones, about one a vessel, are left to the caller, who knows which of equal vessels to prefer.
    """
    order = np.sort(level / step)
    sums, number = np.cumsum(order), np.arange(1, len(order) + 1)
    heights = (count + sums) / number  # of the surface, were these the vessels that are reached
    reached = int(np.flatnonzero(heights > order)[-1])
    taken = np.floor(heights[reached] - level / step - 1e-9).astype(np.int64)
    filled: IntArray = np.maximum(taken, 0)
    return filled
