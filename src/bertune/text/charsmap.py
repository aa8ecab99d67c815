"""Maps of characters in SentencePiece's binary form, which the normalizer `Precompiled` of tokenizers reads.

The form is a double array, in Darts' layout, over the bytes of the texts that are replaced, and then what
they become, each ended by a zero byte. See `precompiled_charsmap` in sentencepiece_model.proto.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Mapping

_BLOCK = 256
"""The children of a node lie within as many units, since a child's place is its node's base XOR its byte."""
_IS_VALUE = 1 << 31
_HAS_VALUE = 1 << 8
_MAX_OFFSET = 1 << 21
"""Offsets of 21 bits; with more, Darts counts blocks, and a map of characters needs no more."""
_Node = dict[int, "_Node"]


def encode_charsmap(replacements: Mapping[str, str]) -> bytes:
    """Return the bytes of a map from texts to what they become.

    Args:
        replacements: keys are not empty and hold no zero character, nor do values.

    Raises:
        ValueError: a text is empty or holds a zero character, or the map is too large.
    """
    if any(not key or "\0" in key + value for key, value in replacements.items()):
        raise ValueError("a map of characters holds an empty text or a zero character")
    values, places = bytearray(), dict[str, int]()
    for value in replacements.values():
        if value not in places:
            places[value] = len(values)
            values += value.encode() + b"\0"
    units = _double_array({key.encode(): places[value] for key, value in replacements.items()})
    if sys.byteorder == "big":
        units.byteswap()
    return (4 * len(units)).to_bytes(4, "little") + units.tobytes() + bytes(values)


def _double_array(values: Mapping[bytes, int]) -> array.array[int]:
    """Return the units of a double array by which a reader walks from byte to byte of a key."""
    root: _Node = {}
    for key in values:
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
    units, is_used = array.array("I", bytes(4 * _BLOCK)), bytearray(_BLOCK)
    is_used[0] = 1
    bases = set[int]()
    waiting: list[tuple[int, bytes, _Node]] = [(0, b"", root)]
    while waiting:
        place, key, node = waiting.pop()
        bytes_after = [0, *node] if key in values else [*node]
        base = _find_base(bytes_after, is_used, bases)
        bases.add(base)
        if base + _BLOCK > len(units):
            units.extend([0] * _BLOCK)
            is_used.extend(bytes(_BLOCK))
        offset = place ^ base
        if offset >= _MAX_OFFSET:
            raise ValueError("the map of characters is too large")
        units[place] |= offset << 10
        for byte in bytes_after:
            is_used[base ^ byte] = 1
            units[base ^ byte] = byte
        if key in values:
            units[place] |= _HAS_VALUE
            units[base] = _IS_VALUE | values[key]
        waiting += [(base ^ byte, key + bytes([byte]), child) for byte, child in node.items()]
    return units


def _find_base(bytes_after: list[int], is_used: bytearray, bases: set[int]) -> int:
    """Return a base whose places for these bytes are all free; it may lie in a block behind the end.

    Only the last blocks are searched: the others are almost full, and a look at all takes five times as long.
    No two nodes share a base: a unit holds its byte alone, and would be taken for a child of both.
    """
    for base in range(max(0, len(is_used) - 4 * _BLOCK), len(is_used)):
        if base not in bases and not any(is_used[base ^ byte] for byte in bytes_after):
            return base
    return len(is_used)
