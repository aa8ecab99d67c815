"""Vectors in float32, float16, int8 or packed bits."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from bertune.errors import ConfigError
from bertune.metrics import similarity as metrics
from bertune.metrics.similarity import Similarity

VectorDtype = Literal["float32", "float16", "int8", "binary", "ubinary"]
FloatArray = npt.NDArray[np.float32]

VECTOR_DTYPES: tuple[VectorDtype, ...] = get_args(VectorDtype)
NUMPY_DTYPES: dict[VectorDtype, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "binary": np.int8,
    "ubinary": np.uint8,
}
PACKED_DTYPES: tuple[VectorDtype, ...] = ("binary", "ubinary")
"""Signs, eight to a byte."""


def check_vector_dtype(dtype: str) -> None:
    """Check that vectors can be stored in this dtype.

    Raises:
        ConfigError: there is no such dtype.
    """
    if dtype not in VECTOR_DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is none of {', '.join(VECTOR_DTYPES)}")


def quantize_vectors(vectors: FloatArray, dtype: VectorDtype) -> npt.NDArray[Any]:
    """Return vectors (n, d) in the form in which they are stored.

    - float32 and float16 are casts.
    - int8 scales each vector so that its largest absolute value is 127: it loses its length and keeps its
      direction.
    - ubinary keeps the signs, eight to a byte: (n, ceil(d / 8)) of uint8; 0 counts as negative. binary is the
      same less 128, as int8. Both are those of sentence-transformers' `quantize_embeddings`.

    Raises:
        ConfigError: there is no such dtype.
    """
    if dtype == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
        return np.rint(vectors / np.where(largest, largest, 1) * np.float32(127)).astype(np.int8)
    if dtype in PACKED_DTYPES:
        packed = np.packbits(vectors > 0, axis=1)
        return packed if dtype == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    check_vector_dtype(dtype)
    with np.errstate(over="ignore"):
        return vectors.astype(NUMPY_DTYPES[dtype])


def dequantize_vectors(stored: npt.NDArray[Any], dtype: VectorDtype, dim: int) -> FloatArray:
    """Return what `quantize_vectors` made as float32 (n, dim): int8 as -127 to 127, bits as -1 and 1."""
    if dtype in PACKED_DTYPES:
        packed = stored if stored.dtype == np.uint8 else (stored.astype(np.int16) + 128).astype(np.uint8)
        return np.unpackbits(packed, axis=1, count=dim).astype(np.float32) * 2 - 1
    return stored.astype(np.float32)


def l2_normalize(vectors: FloatArray) -> FloatArray:
    """Return vectors (n, d) with length 1, computed in float64; a zero vector stays zero."""
    return metrics.l2_normalize(vectors, np.float64).astype(np.float32)


def pair_similarities(left: npt.NDArray[Any], right: npt.NDArray[Any], similarity: Similarity) -> FloatArray:
    """Return the similarity of each row of `left` (n, d) with the same row of `right`.

    Distances are negative. It is computed in float64, and does not depend on the other rows.
    """
    if similarity == "cosine":
        return cosines(left, right)
    a, b = left.astype(np.float64), right.astype(np.float64)
    if similarity == "dot":
        scores = (a * b).sum(axis=1)
    elif similarity == "euclidean":
        scores = -np.sqrt(((a - b) ** 2).sum(axis=1))
    else:
        scores = -np.abs(a - b).sum(axis=1)
    result: FloatArray = scores.astype(np.float32)
    return result


def cosines(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> FloatArray:
    """Return the cosine of each row of `left` (n, d) with the same row of `right`; 0 for a zero vector.

    A row's cosine does not depend on the other rows, as it may in a matrix product.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    result: FloatArray = ((a * b).sum(axis=1) / np.where(lengths, lengths, 1)).astype(np.float32)
    return result
