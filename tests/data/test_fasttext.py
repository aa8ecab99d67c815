"""Files labelled as for fastText, and files with a text a line."""

from __future__ import annotations

import gzip

import pytest
from tests.data.reading import PARTS, TEXTS, Read

from bertune.config.schema import DataConfig
from bertune.data.fasttext import split_labels
from bertune.data.formats import detect_format
from bertune.tasks.tag import Tag

SAID = "is labelled as for fastText, and is read so (set data.format to read it otherwise)"


@pytest.mark.parametrize(
    "name", ["d.txt", "d.ft", "d.train", "d.valid", "d", "d.csv", "d.tsv", "d.ft.txt", "d.gz"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_behind_a_label_are_recognised_and_said(write, name: str, end: str) -> None:
    content = end.join(["__label__pos good, really", "", "__label__neg\tbad", "__label__pos fine "]) + end
    path = write(name, gzip.compress(content.encode()) if name.endswith("gz") else content)
    read = Read(path)
    assert read.values == [("good, really", "pos"), ("bad", "neg"), ("fine", "pos")]
    assert read.lines == [1, 3, 4]
    assert read.notes == [f"{path}: {SAID}", f"{path}: 1 blank lines skipped"]


@pytest.mark.parametrize("far", [0, 5000])
def test_several_labels_in_one_line_make_all_of_them_lists(write, far: int) -> None:
    path = write("d.txt", "__label__a x y\n" * (far + 1) + "__label__a __label__b z\n__label__b w\n")
    read = Read(path)
    assert read.values[far:] == [("x y", ["a"]), ("z", ["a", "b"]), ("w", ["b"])]
    assert f"{path}: some lines have several labels, so every row has a list of labels" in read.notes


@pytest.mark.parametrize(
    ("line", "labels", "text"),
    [
        ("__label__a good", ["a"], "good"),
        ("good food __label__a", ["a"], "good food"),
        ("__label__a  __label__b\tgood", ["a", "b"], "good"),
        ("__label__a", ["a"], ""),
        ("__label__a,__label__b good", ["a", "b"], "good"),
        ("my__label__a is text", [], "my__label__a is text"),
        ("__label__很好 东西 好", ["很好"], "东西 好"),
    ],
)
def test_labels_of_a_line(line: str, labels: list[str], text: str) -> None:
    assert split_labels(line) == (labels, text)


def test_the_format_as_a_setting(write) -> None:
    path = write("d.txt", "good __label__pos\nbad __label__neg\n")
    assert Read(path, format="fasttext").values == [("good", "pos"), ("bad", "neg")]
    assert Read(path, format="fasttext", need_target=False).fields[0]["text"] == "good"


def test_a_line_without_label(write) -> None:
    read = Read(write("d.txt", "__label__a x\n" * 60 + "y\n"))
    assert read.values[-1] == ("y", None)


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("d.csv", "label,text\n__label__a,good\n", {}),
        ("d.csv", "__label__a,good\n__label__b,bad\n", {"columns": ["label", "text"]}),
        ("d.tsv", "__label__a\tgood\n__label__b\tbad\n", {"columns": ["label", "text"]}),
    ],
)
def test_tables_with_such_labels_stay_tables(
    write, name: str, content: str, settings: dict[str, object]
) -> None:
    read = Read(write(name, content), **settings)
    assert read.rows[0].raw == {"label": "__label__a", "text": "good"}


def test_a_prefix_without_label_is_a_missing_label(write) -> None:
    assert Read(write("d.txt", "__label__ a\n__label__x b\n")).values == [("__label__ a", None), ("b", "x")]


def test_a_word_a_line_stays_so(write) -> None:
    path = write("d.txt", "__label__a O\n__label__b O\n")
    assert detect_format(path, DataConfig(), Tag.columns) == "conll"
    assert detect_format(write("e.txt", "text\tlabel\n__label__a x\n"), DataConfig(), PARTS) == "tsv"


# ---------------------------------------------------------------- a text a line


def test_blank_lines_of_texts_are_skipped_counted_and_placed(write) -> None:
    path = write("d.txt", "a\n\nb\n  \nc\n\n")
    read = Read(path, columns_of_task=TEXTS, format="lines")
    assert [fields["text"] for fields in read.fields] == ["a", "b", "c"]
    assert read.lines == [1, 3, 5]
    assert read.faults.count == 0
    assert read.notes == [f"{path}: 3 blank lines skipped (line 2, 4, 6)"]


def test_many_blank_lines_are_counted(write) -> None:
    path = write("d.txt", "a\n\n" * 30)
    assert Read(path, columns_of_task=TEXTS, format="lines").notes == [
        f"{path}: 30 blank lines skipped (line 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, ...)"
    ]


def test_labelled_lines_among_texts_lose_their_labels(write) -> None:
    path = write("d.txt", "__label__pos good\nplain\n")
    read = Read(path, columns_of_task=PARTS, need_target=False, format="lines")
    assert [row.raw for row in read.rows] == [{"text": "good", "label": "pos"}, {"text": "plain"}]
    assert read.notes == [f"{path}: 1 lines are labelled as for fastText, and read so"]


@pytest.mark.parametrize("first", ["text", "Sentence", "标题"])
def test_a_first_line_that_may_be_a_header_is_said(write, first: str) -> None:
    path = write("d.txt", f"{first}\na\n{first}\n")
    read = Read(path, columns_of_task=TEXTS, format="lines")
    assert [fields["text"] for fields in read.fields] == [first, "a", first]
    assert read.notes == [
        f"{path}:1: the first line, {first!r}, is read as a text; if it is a header, remove it"
    ]
