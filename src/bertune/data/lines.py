"""Bytes of a file to lines of text: compression, encoding, line ends; errors name the line."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from codecs import getincrementaldecoder, lookup
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from bertune.data.file_kinds import (
    GZIP_MARK,
    HEAD_BYTES,
    decodes,
    encoding_of_mark,
    is_text,
    refuse_other_kinds,
    wide_encoding,
)
from bertune.errors import DataError
from bertune.files import is_remote

DECOMPRESSION_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
"""What a damaged compressed file raises."""
_ENCODING_BYTES = 1 << 20
"""Bytes that decide which encodings are possible."""


def read_lines(
    source: str,
    encoding: str,
    *,
    keep_newlines: bool,
    any_text: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[str]:
    r"""Yield the decoded lines of a file. LF ends a line; CR does in a file whose beginning has no LF.

    A byte-order mark at the beginning of a line is left out: it comes from files that were joined.

    Args:
        source: a path, or "-" for standard input.
        encoding: a name that Python knows.
        keep_newlines: leave CR and CRLF as they are, for the csv reader, which must see newlines in quotes.
            Else every line ends with `\n`, or with `\r\n`.
        any_text: whether any text is a row, so that a page of HTML is not refused.
        note: called with each line that a user should see.

    Raises:
        DataError: the file cannot be read, is damaged, is of a format that is not text, or has another
            encoding.
    """
    try:
        with open_binary(source) as raw:
            head = _peek(raw)
            _refuse_other_text(source, head, encoding, any_text=any_text)
            ends_with_cr = _ends_with_cr(head, encoding)
            if ends_with_cr:
                note(f"{source}: lines end with CR alone, as on old Macs, and are read so")
            newline = "" if keep_newlines else "\r" if ends_with_cr else "\n"
            with io.TextIOWrapper(raw, encoding=encoding, newline=newline) as text:
                lines = _without_marks(source, text, note)
                yield from lines if keep_newlines or not ends_with_cr else (_with_lf(line) for line in lines)
    except UnicodeError as error:  # utf-16 without byte-order mark raises no UnicodeDecodeError
        raise DataError(_decoding_message(source, encoding, error)) from None
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{source}: the compressed file is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from None


def _without_marks(source: str, text: Iterator[str], note: Callable[[str], None]) -> Iterator[str]:
    """Yield the lines without a byte-order mark at their beginning; note marks after the first line."""
    first_line = num_marks = 0
    for number, line in enumerate(text, 1):
        if line.startswith("\ufeff"):
            line = line[1:]
            if number > 1:
                first_line = first_line or number
                num_marks += 1
        yield line
    if num_marks:
        more = f" (and {num_marks - 1} more)" if num_marks > 1 else ""
        note(f"{source}:{first_line}: a byte-order mark inside the file, left out{more}")


def _with_lf(line: str) -> str:
    return line.removesuffix("\r") + "\n" if line.endswith("\r") else line


def read_head(source: str) -> bytes:
    """Return the first bytes of a file, decompressed; nothing where there is no such file, or it is damaged.

    Standard input has no head: it can be read once only.
    """
    if source == "-" or is_remote(source) or not Path(source).is_file():
        return b""
    try:
        with open_binary(source) as raw:
            return raw.read(HEAD_BYTES)
    except (OSError, *DECOMPRESSION_ERRORS):
        return b""


def is_gzip(source: str) -> bool:
    """Tell whether a file is compressed by gzip: by its name, else by its first bytes."""
    if source.lower().endswith(".gz"):
        return True
    with Path(source).open("rb") as file:
        return file.read(len(GZIP_MARK)) == GZIP_MARK


def open_binary(source: str) -> BinaryIO:
    """Open a file, compressed by gzip or not, or standard input ("-").

    Raises:
        DataError: the name ends in .gz, and the file is of another known kind.
    """
    if source == "-":
        stdin = io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False), HEAD_BYTES)
        compressed = stdin.peek(len(GZIP_MARK)).startswith(GZIP_MARK)
        return cast(BinaryIO, gzip.GzipFile(fileobj=stdin)) if compressed else stdin
    if is_gzip(source):
        with Path(source).open("rb") as file:
            head = file.read(HEAD_BYTES)
        if not head.startswith(GZIP_MARK):
            refuse_other_kinds(source, head)
        return cast(BinaryIO, gzip.open(source, "rb"))
    return Path(source).open("rb", HEAD_BYTES)


def _peek(raw: BinaryIO) -> bytes:
    """Return some first bytes of an open file without reading them."""
    return cast(io.BufferedReader, raw).peek(HEAD_BYTES)[:HEAD_BYTES]


def _ends_with_cr(head: bytes, encoding: str) -> bool:
    """Tell whether CR alone ends the lines of a file."""
    text = getincrementaldecoder(encoding)("replace").decode(head)
    return "\r" in text[:-1] and "\n" not in text


def _refuse_other_text(source: str, head: bytes, encoding: str, *, any_text: bool) -> None:
    """Refuse a file that is no text of this encoding, though its bytes may decode.

    Raises:
        DataError: what it is, and what to do.
    """
    refuse_other_kinds(source, head, any_text=any_text)
    codec = lookup(encoding).name
    mark = encoding_of_mark(head)
    if source == "-" and mark and mark != "utf-8" and not codec.startswith(mark):
        raise DataError(f"standard input: is {mark} text, not {encoding}; set data.encoding={mark}")
    if not codec.startswith(("utf-16", "utf-32")):
        wide = None if mark else wide_encoding(head)
        if wide is not None:
            bits = wide.upper().removesuffix("-LE").removesuffix("-BE")
            raise DataError(
                f"{source}: is {bits} text without byte-order mark, not {encoding}; set data.encoding={wide}"
            )
    if source != "-" and codec not in {"utf-8", "utf-8-sig"}:
        _refuse_utf8(source, encoding)


def _refuse_utf8(source: str, encoding: str) -> None:
    """Refuse to decode UTF-8 as another encoding: it often decodes to nonsense without an error."""
    with open_binary(source) as raw:
        head = raw.read(_ENCODING_BYTES + 1)
    complete = len(head) <= _ENCODING_BYTES
    head = head[:_ENCODING_BYTES]
    if not head.isascii() and all(decodes(head, name, final=complete) for name in ("utf-8", encoding)):
        line = next(number for number, part in enumerate(head.split(b"\n"), 1) if not part.isascii())
        raise DataError(f"{source}:{line}: is UTF-8 text, not {encoding}; set data.encoding=utf-8")


def _decoding_message(source: str, encoding: str, error: UnicodeError) -> str:
    """Return the message for bytes that do not decode: the line, and an encoding that fits."""
    message = f"not {encoding} text: {getattr(error, 'reason', error)}"
    if source == "-":
        return f"standard input: {message}; set data.encoding"
    with open_binary(source) as raw:
        data = raw.read(1 << 26)
    line = _decodable_prefix(data, encoding).count("\n") + 1
    head = data[:_ENCODING_BYTES]
    marked = encoding_of_mark(head)
    for candidate in [marked] if marked else ["utf-8", "gb18030", "big5", "cp1252"]:
        if candidate != encoding and is_text(head, candidate, final=len(head) == len(data)):
            advice = f"it decodes as {candidate}: set data.encoding={candidate}"
            break
    else:
        binary = b"\x00" in head and not marked
        advice = (
            "it has bytes 0, so it is no text file: see what it is with the command `file`"
            if binary
            else "set data.encoding to the file's encoding"
        )
    return f"{source}:{line}: {message}; {advice}"


def _decodable_prefix(data: bytes, encoding: str) -> str:
    """Return the text before the first byte that does not decode."""
    try:
        return getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError as error:
        return data[: error.start].decode(encoding, "ignore")
    except UnicodeError:
        return ""
