"""Bytes of a file to lines of text: compression, encoding, byte-order marks, and which line is at fault."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from bertune.errors import DataError

DECOMPRESSION_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
"""What a damaged compressed file raises."""
_HEAD = 1 << 20
"""Bytes looked at to tell an encoding."""


def read_lines(source: str, encoding: str, *, keep_newlines: bool) -> Iterator[str]:
    """Yield decoded lines. Only LF ends a line, unless the csv reader is to judge newlines inside quotes."""
    newline = "" if keep_newlines else "\n"
    try:
        if source != "-" and codecs.lookup(encoding).name not in {"utf-8", "utf-8-sig"}:
            _refuse_utf8(source, encoding)
        with open_binary(source) as raw, io.TextIOWrapper(raw, encoding=encoding, newline=newline) as text:
            for first in itertools.islice(text, 1):
                yield first.removeprefix("\ufeff")  # a byte-order mark that the codec leaves in
            yield from text
    except UnicodeError as error:  # utf-16 without its mark is no UnicodeDecodeError
        raise DataError(_undecodable(source, encoding, error)) from None
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{source}: the compressed file is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from None


def _refuse_utf8(source: str, encoding: str) -> None:
    """Refuse to read UTF-8 in another encoding: it often decodes, into nonsense, and nothing else would notice."""
    with open_binary(source) as raw:
        head = raw.read(_HEAD + 1)
    whole = len(head) <= _HEAD
    head = head[:_HEAD]
    if not head.isascii() and all(_decodes(head, name, whole=whole) for name in ("utf-8", encoding)):
        line = next(n for n, part in enumerate(head.split(b"\n"), 1) if not part.isascii())
        raise DataError(f"{source}:{line}: is UTF-8 text, not {encoding}; set data.encoding=utf-8")


def open_binary(source: str) -> BinaryIO:
    """Open a file, compressed or not, or standard input ("-")."""
    if source == "-":
        return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
    if source.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(source, "rb"))
    return Path(source).open("rb")


def _undecodable(source: str, encoding: str, error: UnicodeError) -> str:
    """Find the line that does not decode, and an encoding that would."""
    message = f"not {encoding} text: {getattr(error, 'reason', error)}"
    if source == "-":
        return f"standard input: {message}; set data.encoding"
    with open_binary(source) as raw:
        data = raw.read(1 << 26)
    line = _decodable(data, encoding).count("\n") + 1
    head = data[:_HEAD]
    others = ["utf-16"] if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else ["utf-8", "gb18030", "big5", "cp1252"]
    fits = next(
        (
            other
            for other in others
            if other != encoding and _decodes(head, other, whole=len(head) == len(data))
        ),
        None,
    )
    advice = (
        f"it decodes as {fits}: set data.encoding={fits}"
        if fits
        else "set data.encoding to the file's encoding"
    )
    return f"{source}:{line}: {message}; {advice}"


def _decodes(data: bytes, encoding: str, *, whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, whole)
    except UnicodeError:
        return False
    return True


def _decodable(data: bytes, encoding: str) -> str:
    """Return the text before the first byte that does not decode."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError as error:
        return data[: error.start].decode(encoding, "ignore")
    except UnicodeError:
        return ""
