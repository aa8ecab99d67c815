"""Bytes of a file to lines of text: compression, encoding, byte-order mark; errors name the line."""

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
_HEAD_BYTES = 1 << 20
"""Bytes that decide which encodings are possible."""


def read_lines(source: str, encoding: str, *, keep_newlines: bool) -> Iterator[str]:
    """Yield the decoded lines of a file. Only LF ends a line.

    Args:
        source: a path, or "-" for standard input.
        encoding: a name that Python knows.
        keep_newlines: leave CR and CRLF as they are, for the csv reader, which must see newlines in quotes.

    Raises:
        DataError: the file cannot be read, is damaged, or has another encoding.
    """
    newline = "" if keep_newlines else "\n"
    try:
        if source != "-" and codecs.lookup(encoding).name not in {"utf-8", "utf-8-sig"}:
            _refuse_utf8(source, encoding)
        with open_binary(source) as raw, io.TextIOWrapper(raw, encoding=encoding, newline=newline) as text:
            for first in itertools.islice(text, 1):
                yield first.removeprefix("\ufeff")  # a byte-order mark that the codec does not remove
            yield from text
    except UnicodeError as error:  # utf-16 without byte-order mark raises no UnicodeDecodeError
        raise DataError(_decoding_message(source, encoding, error)) from None
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{source}: the compressed file is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from None


def _refuse_utf8(source: str, encoding: str) -> None:
    """Refuse to decode UTF-8 as another encoding: it often decodes to nonsense without an error."""
    with open_binary(source) as raw:
        head = raw.read(_HEAD_BYTES + 1)
    complete = len(head) <= _HEAD_BYTES
    head = head[:_HEAD_BYTES]
    if not head.isascii() and all(_decodes(head, name, final=complete) for name in ("utf-8", encoding)):
        line = next(number for number, part in enumerate(head.split(b"\n"), 1) if not part.isascii())
        raise DataError(f"{source}:{line}: is UTF-8 text, not {encoding}; set data.encoding=utf-8")


def open_binary(source: str) -> BinaryIO:
    """Open a file, compressed or not, or standard input ("-")."""
    if source == "-":
        return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
    if source.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(source, "rb"))
    return Path(source).open("rb")


def _decoding_message(source: str, encoding: str, error: UnicodeError) -> str:
    """Return the message for bytes that do not decode: the line, and an encoding that fits."""
    message = f"not {encoding} text: {getattr(error, 'reason', error)}"
    if source == "-":
        return f"standard input: {message}; set data.encoding"
    with open_binary(source) as raw:
        data = raw.read(1 << 26)
    line = _decodable_prefix(data, encoding).count("\n") + 1
    head = data[:_HEAD_BYTES]
    utf16 = data[:2] in {b"\xff\xfe", b"\xfe\xff"}
    for candidate in ["utf-16"] if utf16 else ["utf-8", "gb18030", "big5", "cp1252"]:
        if candidate != encoding and _decodes(head, candidate, final=len(head) == len(data)):
            advice = f"it decodes as {candidate}: set data.encoding={candidate}"
            break
    else:
        advice = "set data.encoding to the file's encoding"
    return f"{source}:{line}: {message}; {advice}"


def _decodes(data: bytes, encoding: str, *, final: bool) -> bool:
    """Tell whether bytes decode; unless `final`, the last character may be incomplete."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, final)
    except UnicodeError:
        return False
    return True


def _decodable_prefix(data: bytes, encoding: str) -> str:
    """Return the text before the first byte that does not decode."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError as error:
        return data[: error.start].decode(encoding, "ignore")
    except UnicodeError:
        return ""
