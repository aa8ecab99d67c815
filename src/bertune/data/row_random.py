"""Random numbers of a row that depend on a seed and on what stands in the row, on nothing else.

So it makes no difference which rows share a batch, a micro-batch or a process, where an epoch is resumed, and
in which order numbers are drawn. A generator with a state cannot do that; a hash can. The hash is the last
step of splitmix64, which lets every bit of the input change every bit of the output.

Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators; constants of Stafford's
variant 13, as in Java's SplittableRandom.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bertune.types import Ragged

KeyArray = npt.NDArray[np.uint64]

_STEP = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: successive numbers lie far apart."""
_SEED_SALT = 0xA0761D6478BD642F
"""Any number: a seed is hashed otherwise than a row's content."""
_BITS = (1 << 64) - 1


def row_keys(ragged: Ragged, seed: int) -> KeyArray:
    """Return a key (B,) for each row: a hash of the seed and of the row's token ids in their order.

    Rows with the same tokens have the same key.

    Args:
        ragged: a batch on the CPU; a window is a row.
        seed: any integer; of larger ones the last 64 bits count.
    """
    ids = ragged.input_ids.numpy().astype(np.uint64)
    lengths = np.asarray(ragged.lengths, np.int64)
    offsets = np.append(0, np.cumsum(lengths))
    places = _places(lengths, offsets).astype(np.uint64)
    hashes = _mix(ids * np.uint64(_STEP) + _mix(places + np.uint64(1)))  # 0 would stay 0
    totals = np.append(np.uint64(0), np.cumsum(hashes, dtype=np.uint64))
    sums = totals[offsets[1:]] - totals[offsets[:-1]]
    contents = _mix(sums + (lengths.astype(np.uint64) + np.uint64(1)) * np.uint64(_STEP))
    return _mix(contents + _mix(_number(seed) ^ _number(_SEED_SALT)))


def places_in_rows(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place (T,) of each token in its row, from 0.

    >>> places_in_rows(np.array([2, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    return _places(lengths, np.append(0, np.cumsum(lengths)))


def _places(lengths: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    places: npt.NDArray[np.int64] = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return places


def uniform(
    keys: KeyArray, counter: npt.NDArray[np.integer] | int, stream: int = 0
) -> npt.NDArray[np.float64]:
    """Return a random number in [0, 1) for each key.

    Equal key, counter and stream give the same number; others give independent ones.

    Args:
        keys: (N,), from `row_keys`.
        counter: (N,) or one number: which of the row's numbers it is, such as the place of a token.
        stream: what the number is for, so that two uses of one counter differ.
    """
    numbers = np.asarray(counter).astype(np.uint64)
    bits = _mix(_mix(keys + _number(stream + 1) * np.uint64(_STEP)) + (numbers + _ONE) * np.uint64(_STEP))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


_ONE = np.ones(1, np.uint64)  # arrays wrap around silently, single numbers warn


def _number(value: int) -> KeyArray:
    return np.array([value & _BITS], np.uint64)


def _mix(values: KeyArray) -> KeyArray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: KeyArray = values ^ (values >> np.uint64(31))
    return mixed
