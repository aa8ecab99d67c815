"""Texts on standard input: what is skipped, counted and said, and that each text has its prediction."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bertune.commands.predict import predict
from bertune.commands.train import train
from bertune.console import Console
from bertune.errors import DataError

Ask = Callable[..., tuple[list[dict[str, object]], list[str]]]


class Listening(Console):
    """Keeps the lines that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier trained in one step on a table that is divided by semicolons."""
    folder = tmp_path_factory.mktemp("stdin")
    rows = "".join(f"a good dog {n};{'xy'[n % 2]}\n" for n in range(20))
    (folder / "t.csv").write_text(f"text;label\n{rows}")
    settings = [
        f"data.train={folder / 't.csv'}",
        f"model={tiny}",
        f"out={folder / 'out'}",
        "train.max_steps=1",
    ]
    train("classify", settings, quiet=True)
    return folder / "out"


@pytest.fixture
def ask(model: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Predict what standard input holds; return the columns of each row, and what was said."""

    def predict_input(content: bytes, *settings: str) -> tuple[list[dict[str, object]], list[str]]:
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        with os.fdopen(reader) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            console = Listening()
            predictions = predict(model, "-", settings, console=console)
            return [row.raw for row, _ in predictions.results], console.lines

    return predict_input


def texts(*values: str) -> list[dict[str, str]]:
    return [{"text": value} for value in values]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a\n\nb\n", "data: -: 1 blank lines skipped (line 2)"),
        ("\n\na\n   \nb\n\n", "data: -: 4 blank lines skipped (line 1, 2, 4, 6)"),
        ("a\r\n\r\nb\r\n", "data: -: 1 blank lines skipped (line 2)"),
        ("a\rb\r", "data: -: lines end with CR alone, as on old Macs, and are read so"),
        ("a\n\ufeffb\n", "data: -:2: a byte-order mark inside the file, left out"),
    ],
)
def test_every_text_has_a_row_and_the_rest_is_said(ask: Ask, content: str, said: str) -> None:
    rows, lines = ask(content.encode())
    assert rows == texts("a", "b")
    assert said in lines


def test_odd_characters_end_no_line(ask: Ask) -> None:
    odd = "a\u2028b\x85c\x0cd"
    assert ask(f"{odd}\nb\n".encode())[0] == texts(odd, "b")


def test_compressed_input_is_read(ask: Ask) -> None:
    assert ask(gzip.compress(b"a\n\nb\n"))[0] == texts("a", "b")


def test_labels_of_fasttext_are_no_part_of_a_text(ask: Ask) -> None:
    rows, lines = ask(b"__label__x a\nb\n")
    assert rows == [{"text": "a", "label": "x"}, {"text": "b"}]
    assert "data: -: 1 lines are labelled as for fastText, and read so" in lines


@pytest.mark.parametrize(
    ("content", "setting"),
    [
        ("text;id\na, c;1\nb;2\n", "data.format=csv"),
        ('text,id\n"a, c",1\nb,2\n', "data.format=tsv"),
        ('{"data": [{"text": "a, c", "id": 1},\n {"text": "b", "id": 2}]}', "data.format=json"),
        ('{\n"text": "a, c",\n"id": 1}\n{\n"text": "b",\n"id": 2\n}\n', "data.format=jsonl"),
    ],
)
def test_other_formats(ask: Ask, content: str, setting: str) -> None:
    rows, _ = ask(content.encode(), setting)
    assert [row["text"] for row in rows] == ["a, c", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b c\n".encode("utf-16"), "standard input: is utf-16 text, not utf-8; set data.encoding=utf-16"),
        (
            "a b c\n".encode("utf-16-le"),
            "-: is UTF-16 text without byte-order mark, not utf-8; set ",
        ),
        (b"PK\x03\x04\x14\x00xl/workbook.xml", "-: is an Excel workbook (xlsx); save the sheet as csv"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "-: is a pointer of Git LFS"),
        (b"", "-: holds no rows"),
        (b"\n\n", "-: holds no rows"),
    ],
)
def test_what_cannot_be_read_is_named(ask: Ask, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        ask(content)
    assert str(caught.value).startswith(message)
