"""What the first bytes of a file say it is, whatever its name: other formats, pages, pointers, encodings."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from bertune.errors import DataError

GZIP_MARK = b"\x1f\x8b"
PARQUET = rb"PAR1[\x00-\x08\x0e-\x1f]"
"""A regular expression; a control byte tells a file from a text that begins so."""
HEAD_BYTES = 1 << 16
"""Bytes that say what a file is."""


class FileKind(NamedTuple):
    """A kind of file that is not read."""

    pattern: bytes
    """A regular expression that its first bytes match; "." is any byte."""
    name: str
    advice: str
    """What to do, with `{file}` for the file."""


_SHEET = "save the sheet as csv (Excel: Save As, CSV UTF-8) and give that file"
_UNPACK = "unpack it and give the file inside"
_EXPORT = "write its rows as csv, JSON lines or parquet with the program that made it"
_NO_ROWS = "give a file with rows, such as csv or JSON lines"
_PANDAS = (
    "convert it: python -c \"import pandas; pandas.{reader}('{file}').to_parquet('new.parquet')\", "
    "and give the new file"
)

_KINDS = (
    FileKind(
        rb"version https://git-lfs\.github\.com/spec/",
        "a pointer of Git LFS, which stands for the data",
        "get the data itself: git lfs pull",
    ),
    FileKind(
        rb"PK\x03\x04.*?xl/(workbook|worksheets|sharedStrings|styles|theme|_rels)",
        "an Excel workbook (xlsx)",
        _SHEET,
    ),
    FileKind(rb"PK\x03\x04.*?opendocument\.spreadsheet", "an OpenDocument sheet (ods)", _SHEET),
    FileKind(rb"PK\x03\x04.*?word/(document|_rels)", "a Word document (docx)", _NO_ROWS),
    FileKind(rb"PK\x03\x04.*?\[Content_Types\]\.xml", "an Office document, such as xlsx", _SHEET),
    FileKind(rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive", _UNPACK),
    FileKind(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document, such as xls", _SHEET),
    FileKind(PARQUET, "a parquet file", "set data.format=parquet"),
    FileKind(rb"\x1f\x8b", "compressed by gzip twice", "gzip -dc '{file}' > new.gz, and give the new file"),
    FileKind(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "compressed by bzip2", "bzip2 -dc '{file}' > new.csv"),
    FileKind(rb"\xfd7zXZ\x00", "compressed by xz", "xz -dc '{file}' > new.csv"),
    FileKind(rb"\x28\xb5\x2f\xfd", "compressed by zstd", "zstd -dc '{file}' > new.csv"),
    FileKind(rb"\x04\x22\x4d\x18", "compressed by lz4", "lz4 -dc '{file}' > new.csv"),
    FileKind(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    FileKind(rb"Rar!\x1a\x07", "a rar archive", _UNPACK),
    FileKind(rb".{257}ustar[\x00 ]", "a tar archive", _UNPACK),
    FileKind(
        rb"ARROW1\x00\x00|FEA1[\x00-\x08]",
        "an Arrow file (feather)",
        _PANDAS.replace("{reader}", "read_feather"),
    ),
    FileKind(rb"\xff\xff\xff\xff..\x00\x00", "a stream of Arrow batches", _EXPORT),
    FileKind(rb"ORC.{,64}\x00", "an ORC file", _PANDAS.replace("{reader}", "read_orc")),
    FileKind(rb"Obj\x01", "an Avro file", _EXPORT),
    FileKind(rb"\x89HDF\r\n\x1a\n", "an HDF5 file", _PANDAS.replace("{reader}", "read_hdf")),
    FileKind(
        rb"SQLite format 3\x00",
        "an SQLite database",
        "export its table: sqlite3 -csv -header '{file}' 'select * from TABLE' > new.csv",
    ),
    FileKind(
        rb"\x80[\x02-\x05][\x95}\](cK\x8c]", "a Python pickle", f"{_EXPORT} (opening a pickle runs code)"
    ),
    FileKind(rb"\x93NUMPY", "a NumPy array (npy)", _NO_ROWS),
    FileKind(rb"<stata_dta>", "a Stata file", _PANDAS.replace("{reader}", "read_stata")),
    FileKind(rb"\$FL[23]@\(#\)", "an SPSS file", _PANDAS.replace("{reader}", "read_spss")),
    FileKind(rb"%PDF-\d", "a PDF document", _NO_ROWS),
    FileKind(rb"\{\\rtf", "an RTF document", _NO_ROWS),
    FileKind(rb"\x89PNG\r\n|\xff\xd8\xff[\xdb-\xef]|GIF8[79]a", "a picture", _NO_ROWS),
)
_MARKUP = (
    FileKind(
        rb"\s*(<!--.*?-->\s*)*<(?i:!doctype html|html[\s>].*?<(head|body|title|meta))",
        "a page of HTML, such as a login, an error, or the page about a file",
        "download the file itself",
    ),
    FileKind(
        rb"\s*<\?xml\s.*?(mso-application|urn:schemas-microsoft-com:office)",
        "an Excel workbook in XML",
        _SHEET,
    ),
    FileKind(rb"\s*<\?xml\s", "an XML document", "write its rows as csv or JSON lines"),
)


def refuse_other_kinds(source: str, head: bytes, *, any_text: bool = False, allowed: bytes = b"") -> None:
    """Refuse a file of a kind that is not read.

    Args:
        source: the file, for the message.
        head: its first bytes, `HEAD_BYTES` if it has so many.
        any_text: whether any text is a row, so that HTML and XML are not refused.
        allowed: the pattern of a kind that is read.

    Raises:
        DataError: what the file is, and what to do.
    """
    head = head.removeprefix(codecs.BOM_UTF8)
    for kind in _KINDS if any_text else (*_KINDS, *_MARKUP):
        if kind.pattern != allowed and re.match(kind.pattern, head, re.DOTALL):
            raise DataError(f"{source}: is {kind.name}; {kind.advice.replace('{file}', source)}")


_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as the mark of utf-16 does, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def encoding_of_mark(head: bytes) -> str | None:
    """Return the encoding that a byte-order mark stands for."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


def wide_encoding(head: bytes) -> str | None:
    """Return the encoding of UTF-16 or UTF-32 text without byte-order mark; None for anything else.

    In such text every character below 256 has a byte 0, which text in other encodings does not have.
    """
    if b"\x00" not in head:
        return None
    is_dense = head.count(b"\x00") >= 0.2 * len(head)
    if not is_dense and decodes(head, "utf-8", final=False):
        return None  # a stray byte 0
    best, most = None, 0
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        if not is_text(head, encoding, final=False):
            continue
        text = codecs.getincrementaldecoder(encoding)().decode(head)
        score = sum(character < "\x80" for character in text)
        if score > most and (is_dense or "\n" in text or "\r" in text):
            best, most = encoding, score
    return best


def is_text(head: bytes, encoding: str, *, final: bool) -> bool:
    """Tell whether bytes decode to text without control characters."""
    if not decodes(head, encoding, final=final):
        return False
    return not _CONTROLS.search(codecs.getincrementaldecoder(encoding)().decode(head))


def decodes(data: bytes, encoding: str, *, final: bool) -> bool:
    """Tell whether bytes decode; unless `final`, the last character may be incomplete."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, final)
    except UnicodeError:
        return False
    return True
