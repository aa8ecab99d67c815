"""Files that are not what their name says: named by their first bytes, or read and said."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from tests.data.reading import PARTS, TEXTS, Read, refused

from bertune.config.schema import DataConfig
from bertune.data.file_kinds import wide_encoding
from bertune.data.formats import detect_format
from bertune.tasks.tag import Tag

CSV = "text,label\na good dog,yes\nno car,no\n"
EXPECTED = [("a good dog", "yes"), ("no car", "no")]
TABLE = pa.table({"text": ["a good dog", "no car"], "label": ["yes", "no"]})


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name in names:
            file.writestr(name, "<x/>")
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        member = tarfile.TarInfo("d.csv")
        member.size = len(CSV)
        file.addfile(member, io.BytesIO(CSV.encode()))
    return out.getvalue()


def sqlite(folder: Path) -> bytes:
    path = folder / "made.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table rows (text, label)")
    connection.close()
    return path.read_bytes()


def feather() -> bytes:
    out = io.BytesIO()
    pyarrow.feather.write_feather(TABLE, out)
    return out.getvalue()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(TABLE, out)
    return out.getvalue()


XLSX = archive("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", "xl/worksheets/sheet1.xml")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html lang='en'>\n<head><title>Sign in</title></head>\n"

SHEET = "save the sheet as csv (Excel: Save As, CSV UTF-8) and give that file"
NO_ROWS = "give a file with rows, such as csv or JSON lines"
ODS = b"PK\x03\x04\x14\x00mimetypeapplication/vnd.oasis.opendocument.spreadsheet"
DOCX = archive("[Content_Types].xml", "word/document.xml")
LATE_PAGE = b"\n\n<html>\n<head>\n<meta charset='utf-8'>"
XML = b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>"

KINDS: dict[str, tuple[bytes, str, str]] = {
    "xlsx": (XLSX, "an Excel workbook (xlsx)", SHEET),
    "some office": (archive("[Content_Types].xml"), "an Office document, such as xlsx", SHEET),
    "ods": (ODS, "an OpenDocument sheet (ods)", SHEET),
    "docx": (DOCX, "a Word document (docx)", NO_ROWS),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00\x00", "an old Office document, such as xls", SHEET),
    "zip": (archive("d.csv"), "a zip archive", "unpack it"),
    "empty zip": (archive(), "a zip archive", "unpack it"),
    "tar": (tar(), "a tar archive", "unpack it"),
    "tar.gz": (gzip.compress(tar()), "a tar archive", "unpack it"),
    "bz2": (bz2.compress(CSV.encode()), "compressed by bzip2", "bzip2 -dc '{path}' > new.csv"),
    "xz": (lzma.compress(CSV.encode()), "compressed by xz", "xz -dc '{path}' > new.csv"),
    "zst": (b"\x28\xb5\x2f\xfd\x04\x00", "compressed by zstd", "zstd -dc '{path}' > new.csv"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive", "unpack it"),
    "gz twice": (gzip.compress(gzip.compress(CSV.encode())), "compressed by gzip twice", "gzip -dc '{path}'"),
    "feather": (feather(), "an Arrow file (feather)", "read_feather('{path}').to_parquet('new.parquet')"),
    "pickle": (pickle.dumps([{"text": "a"}]), "a Python pickle", "write its rows as csv, JSON lines or"),
    "pickle 2": (pickle.dumps({"text": ["a"]}, 2), "a Python pickle", "write its rows as csv"),
    "npy": (b"\x93NUMPY\x01\x00v\x00{'descr'", "a NumPy array (npy)", NO_ROWS),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document", NO_ROWS),
    "html": (PAGE, "a page of HTML", "download the file itself"),
    "html below blank lines": (LATE_PAGE, "a page of HTML", "download the file itself"),
    "lfs": (POINTER, "a pointer of Git LFS", "get the data itself: git lfs pull"),
    "xml": (XML, "an XML document", "write its rows as csv or JSON lines"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\x00\x00", "an HDF5 file", "pandas.read_hdf"),
    "picture": (b"\x89PNG\r\n\x1a\n\x00", "a picture", NO_ROWS),
}
NAMES = ["d.csv", "d.tsv", "d.txt", "d.jsonl", "d.json", "d.parquet", "d.conll", "d"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named_under_any_name(write, kind: str, name: str) -> None:
    content, what, advice = KINDS[kind]
    path = write(name, content)
    message = refused(path)
    assert message.startswith(f"{path}: is {what}")
    assert advice.replace("{path}", path) in message


@pytest.mark.parametrize("name", ["d.csv", "d.db", "d.parquet"])
def test_a_database_is_named(write, tmp_path: Path, name: str) -> None:
    path = write(name, sqlite(tmp_path))
    assert refused(path).startswith(f"{path}: is an SQLite database; export its table: sqlite3 -csv -header ")


@pytest.mark.parametrize("name", ["book.xlsx", "d.zip", "d.csv.bz2", "d.csv.gz"])
@pytest.mark.parametrize("kind", ["xlsx", "lfs", "html"])
def test_other_names_and_files_that_claim_to_be_compressed(write, kind: str, name: str) -> None:
    content, what, _ = KINDS[kind]
    path = write(name, content)
    assert refused(path).startswith(f"{path}: is {what}")


@pytest.mark.parametrize(
    "first",
    [
        "PK",
        "PAR1",
        "ORC",
        "BZh",
        "FEA1",
        "Obj",
        "<b>",
        "GIF",
        "%PDF",
        "version",
        "<html",
        "{\\rt",
        "7z",
        "Rar!",
        "text",
    ],
)
def test_texts_that_begin_like_another_kind_are_read(write, first: str) -> None:
    path = write("d.csv", f"{first},label\na,x\n")
    assert Read(path, columns={"text": first, "label": "label"}).values == [("a", "x")]


def test_texts_a_line_may_be_pages(write) -> None:
    path = write("d.txt", "<!doctype html><html><head></head>\n<?xml version='1.0'?>\n")
    read = Read(path, columns_of_task=TEXTS, format="lines")
    assert [fields["text"] for fields in read.fields] == [
        "<!doctype html><html><head></head>",
        "<?xml version='1.0'?>",
    ]


# ---------------------------------------------------------------- read and said


@pytest.mark.parametrize("name", ["d.csv", "d.csv.zip"])
def test_gzip_under_a_plain_name_is_read_and_said(write, name: str) -> None:
    path = write(name, gzip.compress(CSV.encode()))
    read = Read(path, format="csv")
    assert read.values == EXPECTED
    assert read.notes == [f"{path}: is compressed by gzip, and read so"]


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.conll", "d.txt"])
def test_gzip_of_other_formats_under_a_plain_name(write, name: str) -> None:
    contents = {"d.conll": "a B\nb O\n\nc O\n", "d.txt": "text\tlabel\na\tx\n"}
    content = contents.get(name, '{"text": "a", "label": "x"}\n')
    path = write(name, gzip.compress(content.encode()))
    columns = Tag.columns if name == "d.conll" else PARTS
    plain = Read(write(f"plain.{name}", content), columns_of_task=columns)
    assert Read(path, columns_of_task=columns).fields == plain.fields


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.txt", "d", "d.data"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_parquet_under_another_name_is_read_and_said(write, name: str, packed: bool) -> None:
    path = write(name, gzip.compress(parquet()) if packed else parquet())
    read = Read(path)
    assert read.values == EXPECTED
    assert (
        read.notes[-1] == f"{path}: is a parquet file, and is read so (set data.format to read it otherwise)"
    )
    assert detect_format(path, DataConfig(), PARTS) == "parquet"


def test_parquet_said_to_be_csv(write) -> None:
    path = write("d.csv", parquet())
    assert refused(path, format="csv") == f"{path}: is a parquet file; set data.format=parquet"


# ---------------------------------------------------------------- line ends

ODD = "a\u2028b\x85c\u2029d"
ODDER = ODD + "\x0be\x0cf\x1cg"


@pytest.mark.parametrize(
    ("name", "content", "text", "lines"),
    [
        ("d.csv", f'text,label\r"{ODDER}",x\rb,y\r', ODDER, [2, 3]),
        ("d.tsv", f"text\tlabel\r{ODDER}\tx\rb\ty\r", ODDER, [2, 3]),
        ("d.txt", f"text\tlabel\r{ODDER}\tx\rb\ty", ODDER, [2, 3]),
        ("d.jsonl", f'{{"text": "{ODD}", "label": "x"}}\r{{"text": "b", "label": "y"}}\r', ODD, [1, 2]),
        ("d.json", f'[\r{{"text": "{ODD}", "label": "x"}},\r{{"text": "b",\r"label": "y"}}\r]', ODD, [2, 3]),
        ("d.ft", f"__label__x {ODDER}\r__label__y b\r", ODDER, [1, 2]),
    ],
    ids=["csv", "tsv", "txt", "jsonl", "json", "fasttext"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_lines_that_end_with_cr_alone(
    write, name: str, content: str, text: str, lines: list[int], encoding: str
) -> None:
    path = write(name, content.encode(encoding))
    read = Read(path, encoding=encoding)
    assert read.values == [(text, "x"), ("b", "y")]
    assert read.lines == lines
    assert f"{path}: lines end with CR alone, as on old Macs, and are read so" in read.notes


def test_conll_whose_lines_end_with_cr_alone(write) -> None:
    content = "Peter B-PER\rsaw O\rLondon B-LOC\r\rno O\r"
    path = write("d.conll", content)
    read = Read(path, columns_of_task=Tag.columns)
    same = Read(write("same.conll", content.replace("\r", "\n")), columns_of_task=Tag.columns)
    assert read.fields == same.fields
    assert len(read.rows) == 2
    assert read.lines == same.lines
    assert read.notes == [f"{path}: lines end with CR alone, as on old Macs, and are read so", *same.notes]


@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
def test_doubled_carriage_returns(write, name: str) -> None:
    delimiter = "," if name == "d.csv" else "\t"
    content = CSV.replace(",", delimiter).replace("\n", "\r\r\n")
    read = Read(write(name, content))
    assert read.values == EXPECTED


@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
def test_mixed_line_ends(write, name: str) -> None:
    delimiter = "," if name == "d.csv" else "\t"
    content = "text,label\r\na,x\nb,y\r\nc,x\n".replace(",", delimiter)
    assert Read(write(name, content)).values == [("a", "x"), ("b", "y"), ("c", "x")]


def test_cr_inside_the_lines_of_a_table_is_named(write) -> None:
    path = write("d.tsv", "text\tlabel\na\tx\rb\ty\nc\tx\n")
    read = Read(path)
    assert read.values == [("c", "x")]
    assert read.faults.first_messages == [
        f"{path}:2: 3 columns where 2 are expected (text, label); CR stands inside the line: "
        "give all lines the same end, LF"
    ]


# ---------------------------------------------------------------- encodings


WIDE = "文本,标签\n这家店不错,好\n坏,坏\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("content", [CSV, WIDE, "t,l\nà,é\n"], ids=["english", "chinese", "french"])
@pytest.mark.parametrize("said", ["utf-8", "gb18030", "cp1252"])
def test_wide_text_without_byte_order_mark_is_named(write, encoding: str, content: str, said: str) -> None:
    path = write("d.csv", content.encode(encoding))
    message = refused(path, encoding=said)
    name = encoding[:6].upper()
    assert (
        message == f"{path}: is {name} text without byte-order mark, not {said}; set data.encoding={encoding}"
    )
    read = Read(path, encoding=encoding, columns=["text", "label"])
    assert read.rows[-1].raw == dict(zip(["text", "label"], content.split("\n")[-2].split(","), strict=True))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(write, encoding: str) -> None:
    path = write("d.csv", WIDE.encode(encoding))
    assert refused(path).endswith(f"it decodes as {encoding}: set data.encoding={encoding}")
    assert len(Read(path, encoding=encoding).rows) == 2


def test_text_that_has_no_wide_characters() -> None:
    assert wide_encoding(CSV.encode()) is None
    assert wide_encoding(WIDE.encode("gb18030")) is None
    assert wide_encoding(bytes(range(256)) * 4) is None
    assert wide_encoding(b"text,label\na\x00b,x\n") is None
    assert wide_encoding(WIDE.replace(",", "\x00").encode("gb18030")) is None


def test_bytes_that_are_no_text_get_no_advice_about_encodings(write) -> None:
    path = write("d.csv", b"\x07\xff" + bytes(range(256)) * 4)
    message = refused(path)
    assert "cp1252" not in message
    assert message.endswith("it has bytes 0, so it is no text file: see what it is with the command `file`")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("d.tsv", "text\tlabel\na\tx\n\ufeffb\ty\n", 3),
        ("d.jsonl", '{"text": "a", "label": "x"}\n\ufeff{"text": "b", "label": "y"}\n', 2),
        ("d.csv", "\ufefftext,label\na,x\n\ufeffb,y\n", 3),
    ],
)
def test_a_byte_order_mark_of_joined_files_is_left_out(write, name: str, content: str, line: int) -> None:
    path = write(name, content)
    read = Read(path)
    assert read.values == [("a", "x"), ("b", "y")]
    assert read.notes == [f"{path}:{line}: a byte-order mark inside the file, left out"]
