"""Vectors in float32, float16, int8 or packed bits."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from bertune.errors import ConfigError
from bertune.metrics import similarity

VectorDtype = Literal["float32", "float16", "int8", "binary"]
FloatArray = npt.NDArray[np.float32]

VECTOR_DTYPES: tuple[VectorDtype, ...] = get_args(VectorDtype)
NUMPY_DTYPES: dict[VectorDtype, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "binary": np.uint8,
}


def quantize_vectors(vectors: FloatArray, dtype: VectorDtype) -> npt.NDArray[Any]:
    """Return vectors (n, d) in the form in which they are stored.

    - float32 and float16 are casts.
    - int8 scales each vector so that its largest absolute value is 127: it loses its length and keeps its
      direction.
    - binary keeps the signs, eight to a byte: (n, ceil(d / 8)) of uint8; 0 counts as negative.

    Raises:
        ConfigError: there is no such dtype.
    """
    if dtype == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
        return np.rint(vectors / np.where(largest, largest, 1) * np.float32(127)).astype(np.int8)
    if dtype == "binary":
        return np.packbits(vectors > 0, axis=1)
    if dtype not in VECTOR_DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is none of {', '.join(VECTOR_DTYPES)}")
    with np.errstate(over="ignore"):
        return vectors.astype(NUMPY_DTYPES[dtype])


def dequantize_vectors(stored: npt.NDArray[Any], dtype: VectorDtype, dim: int) -> FloatArray:
    """Return what `quantize_vectors` made as float32 (n, dim): int8 as -127 to 127, binary as -1 and 1."""
    if dtype == "binary":
        return np.unpackbits(stored, axis=1, count=dim).astype(np.float32) * 2 - 1
    return stored.astype(np.float32)


def l2_normalize(vectors: FloatArray) -> FloatArray:
    """Return vectors (n, d) with length 1, computed in float64; a zero vector stays zero."""
    return similarity.l2_normalize(vectors, np.float64).astype(np.float32)


def cosines(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> FloatArray:
    """Return the cosine of each row of `left` (n, d) with the same row of `right`; 0 for a zero vector.

    A row's cosine does not depend on the other rows, as it may in a matrix product.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    result: FloatArray = ((a * b).sum(axis=1) / np.where(lengths, lengths, 1)).astype(np.float32)
    return result
