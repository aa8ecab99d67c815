"""Pieces under which texts are most probable, learnt from the counts of words: the Unigram model.

The trainer of `tokenizers` adds numbers in the order of a hash table, so two trainings on the same texts keep
other pieces. This one computes the same with arrays, in one order.

Letters: `N` words, `E` edges: places where a piece stands in a word. Positions count the characters of all
words one after the other, with one more position at the end of each.

Sources: Kudo 2018, arXiv 1804.10959; `unigram_model_trainer.cc` of SentencePiece.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_CHARACTERS = 1_500_000
"""Characters of different words that are learnt from; words that are rarer than the others are left out."""
KEPT_EACH_ROUND = 0.75
FEWEST_EXPECTED = 0.5
"""A piece that is expected less often is dropped; a character counts as often."""


def learn_pieces(
    counts: Mapping[str, int], alphabet: Sequence[str], seeds: Sequence[str], size: int
) -> list[tuple[str, float]]:
    """Choose pieces, and the logarithm of the probability of each.

    Args:
        counts: how often each word occurs; words hold characters of the alphabet alone. See `most_frequent`.
        alphabet: the characters; all of them are kept.
        seeds: pieces of several characters to choose from.
        size: how many pieces are kept at most.

    Returns:
        The pieces with their scores, the most probable ones first.
    """
    pieces = [*alphabet, *seeds]
    words = list(counts)
    lattice = _Lattice.build(words, pieces)
    weights = np.array([counts[word] for word in words], dtype=np.float64)
    alternatives = _Lattice.build(seeds, pieces, with_whole=False)
    is_character = np.arange(len(pieces)) < len(alphabet)
    scores = np.log(np.maximum(np.bincount(lattice.pieces, weights[lattice.words], len(pieces)), 1e-3))
    scores -= np.log(np.exp(scores).sum())
    kept = np.ones(len(pieces), dtype=bool)
    while True:
        for _ in range(2):
            expected = lattice.expect(scores, weights, len(pieces))
            kept &= is_character | (expected >= FEWEST_EXPECTED)
            scores = _log_probabilities(expected, kept)
        if kept.sum() <= size:
            break
        number = max(size, int(kept.sum() * KEPT_EACH_ROUND))
        loss = np.where(kept, np.inf, -np.inf)
        judged = np.flatnonzero(kept & ~is_character)
        gain = scores[judged] - alternatives.best(scores)[judged - len(alphabet)]
        loss[judged] = expected[judged] * gain
        ranked = np.lexsort((np.arange(len(pieces)), -loss))
        kept[ranked[number:]] = False
        scores = np.where(kept, scores, -np.inf)
    order = [i for i in np.lexsort((np.arange(len(pieces)), -scores)).tolist() if kept[i]]
    return [(pieces[i], round(float(scores[i]), 6)) for i in order]


def most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    """Return as many of the most frequent words as the choice of pieces reads.

    Of words that are equally frequent a checksum decides, not the alphabet, so that all beginnings are there.
    """
    kept, room = {}, MOST_CHARACTERS
    for word in sorted(counts, key=lambda word: (-counts[word], crc32(word.encode()), word)):
        room -= len(word)
        if room < 0:
            break
        kept[word] = counts[word]
    return kept


def _log_probabilities(expected: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Return log probabilities under a sparse prior, as SentencePiece does: by the digamma function."""
    values = np.maximum(np.where(kept, expected, 1.0), FEWEST_EXPECTED)
    total = _digamma(np.array([values[kept].sum()]))
    return np.where(kept, _digamma(values) - total, -np.inf)


def _digamma(x: Floats) -> Floats:
    """Return the derivative of log gamma, for positive numbers.

    >>> round(float(_digamma(np.array([1.0]))[0]), 6)  # minus Euler's constant
    -0.577216
    """
    x, result = x.astype(np.float64), np.zeros(len(x))
    for _ in range(7):
        small = x < 7
        result -= np.where(small, 1 / x, 0.0)
        x = np.where(small, x + 1, x)
    y = x - 0.5
    square = 1 / (y * y)
    series = square * (1 / 24 - square * (7 / 960 - square * (31 / 8064 - square * (127 / 30720))))
    return np.asarray(result + np.log(y) + series)


@dataclass(frozen=True)
class _Steps:
    """Edges in the order in which they are summed, by the position that gets the sum.

    Attributes:
        edges: (E,) numbers of edges.
        firsts: of each position that gets a sum: its first edge among `edges`.
        targets: these positions.
        bounds: where the positions of each step begin among `targets`.
    """

    edges: Ints
    firsts: Ints
    targets: Ints
    bounds: Ints


@dataclass(frozen=True)
class _Lattice:
    """All ways to divide words into pieces.

    Attributes:
        words: (E,) the word of each edge.
        starts, ends: (E,) positions.
        pieces: (E,) the piece of each edge.
        first, last: (N,) the first and last position of each word.
        forward, backward: the order of the sums.
    """

    words: Ints
    starts: Ints
    ends: Ints
    pieces: Ints
    first: Ints
    last: Ints
    forward: _Steps
    backward: _Steps

    @classmethod
    def build(cls, words: Sequence[str], pieces: Sequence[str], *, with_whole: bool = True) -> _Lattice:
        """Find the pieces in words; without `with_whole` a word must be divided."""
        ids = {piece: i for i, piece in enumerate(pieces)}
        prefixes = {piece[:n] for piece in pieces for n in range(1, len(piece) + 1)}
        rows = array("q")  # four numbers an edge
        position, first, last = 0, [], []
        for number, word in enumerate(words):
            first.append(position)
            for start in range(len(word)):
                for end in range(start + 1, len(word) + 1):
                    part = word[start:end]
                    if part not in prefixes:
                        break
                    if part in ids and (with_whole or len(part) < len(word)):
                        rows.extend((number, position + start, position + end, ids[part]))
            position += len(word) + 1
            last.append(position - 1)
        edges = np.ascontiguousarray(np.frombuffer(rows, dtype=np.int64).reshape(-1, 4).T)
        begin, final = np.array(first, dtype=np.int64), np.array(last, dtype=np.int64)
        word, starts, ends = edges[0], edges[1], edges[2]
        forward = _steps(ends - begin[word], ends)
        backward = _steps(final[word] - starts, starts)
        return cls(word, starts, ends, edges[3], begin, final, forward, backward)

    def expect(self, scores: Floats, weights: Floats, num_pieces: int) -> Floats:
        """Return how often each piece is expected, over all ways to divide each word."""
        values = scores[self.pieces]
        before, after = (np.full(self._num_positions, -np.inf) for _ in range(2))
        before[self.first] = 0.0
        after[self.last] = 0.0
        _log_sums(self.forward, before, self.starts, values)
        _log_sums(self.backward, after, self.ends, values)
        total = before[self.last]
        share = np.exp(before[self.starts] + values + after[self.ends] - total[self.words])
        return np.bincount(self.pieces, share * weights[self.words], num_pieces).astype(np.float64)

    def best(self, scores: Floats) -> Floats:
        """Return the score of the best way to divide each word: (N,)."""
        best = np.full(self._num_positions, -np.inf)
        best[self.first] = 0.0
        values = scores[self.pieces]
        for edges, firsts, targets in _iterate(self.forward):
            best[targets] = np.maximum.reduceat(best[self.starts[edges]] + values[edges], firsts)
        return best[self.last]

    @property
    def _num_positions(self) -> int:
        return int(self.last[-1]) + 1 if len(self.last) else 0


def _steps(distance: Ints, targets: Ints) -> _Steps:
    """Order edges by how far their target is, then by the target."""
    edges = np.lexsort((targets, distance))
    sorted_targets, far = targets[edges], distance[edges]
    is_first = np.r_[True, sorted_targets[1:] != sorted_targets[:-1]][: len(edges)]
    firsts = np.flatnonzero(is_first)
    steps = far[firsts]
    bounds = np.flatnonzero(np.r_[True, steps[1:] != steps[:-1]][: len(steps)])
    return _Steps(edges, firsts, sorted_targets[firsts], np.r_[bounds, len(firsts)])


def _iterate(steps: _Steps) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield the edges of each step, where those of each target begin, and the targets."""
    for begin, end in zip(steps.bounds[:-1], steps.bounds[1:], strict=True):
        start = steps.firsts[begin]
        stop = steps.firsts[end] if end < len(steps.firsts) else len(steps.edges)
        yield steps.edges[start:stop], steps.firsts[begin:end] - start, steps.targets[begin:end]


def _log_sums(steps: _Steps, sums: Floats, sources: Ints, values: Floats) -> None:
    """Fill `sums` at each target with the logarithm of the sum over its edges."""
    for edges, firsts, targets in _iterate(steps):
        terms = sums[sources[edges]] + values[edges]
        highest = np.maximum.reduceat(terms, firsts)
        sizes = np.diff(np.r_[firsts, len(terms)])
        shifted = np.exp(terms - np.repeat(highest, sizes))
        sums[targets] = highest + np.log(np.add.reduceat(shifted, firsts))
