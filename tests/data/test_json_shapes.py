"""JSON in other shapes than an object a line: read where there is no doubt, and said how."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import TEXTS, Read, refused

from bertune.config.schema import DataConfig
from bertune.data.formats import read_records
from bertune.data.json_rows import looks_like_json
from bertune.data.json_shapes import read_elements
from bertune.data.records import BadRows, ReadOptions
from bertune.tasks.tag import Tag

RECORDS = [{"text": "a good dog, 好", "label": "yes"}, {"text": "no\ncar", "label": "no"}]
EXPECTED = [("a good dog, 好", "yes"), ("no\ncar", "no")]
COLUMNS = {"text": ["a good dog, 好", "no\ncar"], "label": ["yes", "no"]}
INDEX = {"0": RECORDS[0], "1": RECORDS[1]}
BY_COLUMN = {name: {str(n): value for n, value in enumerate(column)} for name, column in COLUMNS.items()}
SPLIT = {"columns": ["text", "label"], "index": [0, 1], "data": [list(r.values()) for r in RECORDS]}
TABLE = {
    "schema": {"fields": [{"name": "index", "type": "integer"}, {"name": "text", "type": "string"}]},
    "data": [{"index": n, **record} for n, record in enumerate(RECORDS)],
}
HUB = {
    "features": [{"name": "text", "type": {"dtype": "string"}}],
    "rows": [{"row_idx": n, "row": record, "truncated_cells": []} for n, record in enumerate(RECORDS)],
}

SHAPES: dict[str, tuple[object, str, list[int]]] = {
    # the document, what is said, and the lines where it is written with an indent
    "under a key": ({"version": 1, "data": RECORDS}, "the rows are under 'data'", [4, 8]),
    "under keys": ({"result": {"n": 2, "rows": RECORDS}}, "the rows are under 'result.rows'", [5, 9]),
    "beside a title": ({"title": "My set", "items": RECORDS}, "the rows are under 'items'", [4, 8]),
    "arrays": (COLUMNS, "each column is an array; messages count rows, not lines", [1, 2]),
    "arrays inside": (
        {"version": 1, "data": COLUMNS},
        "under 'data': each column is an array; messages count rows, not lines",
        [1, 2],
    ),
    "columns": (
        BY_COLUMN,
        "each column is an object (pandas: orient='columns'); messages count rows, not lines",
        [1, 2],
    ),
    "index": (INDEX, "each row is an object under a name of its own (pandas: orient='index')", [2, 6]),
    "by id": (
        {"doc-a": RECORDS[0], "doc-b": RECORDS[1]},
        "each row is an object under a name of its own (pandas: orient='index')",
        [2, 6],
    ),
    "split": (
        SPLIT,
        "column names are under 'columns', rows under 'data' (pandas: orient='split')",
        [11, 15],
    ),
    "table": (TABLE, "the rows are under 'data' (pandas: orient='table')", [15, 20]),
    "the Hub": (HUB, "the rows are under 'rows', each under 'row' (the viewer of the Hub)", [11, 19]),
    "lists below a header": (
        [["text", "label"], *map(list, EXPECTED)],
        "rows are lists of values in the order of the first",
        [6, 10],
    ),
}


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.json.gz"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_document_in_one_line_or_pretty(write, shape: str, name: str) -> None:
    document, how, lines = SHAPES[shape]
    for indent in (None, 2):
        text = json.dumps(document, indent=indent, ensure_ascii=False) + "\n"
        path = write(name, gzip.compress(text.encode()) if name.endswith("gz") else text)
        read = Read(path)
        assert read.values == EXPECTED
        assert read.faults.count == 0
        assert read.notes == [f"{path}: {how}"]
        assert read.lines == (lines if indent or lines == [1, 2] else [1, 1])


@pytest.mark.parametrize("shape", SHAPES)
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(write, shape: str) -> None:
    document, _, lines = SHAPES[shape]
    text = "\ufeff" + json.dumps(document, indent=2, ensure_ascii=False).replace("\n", "\r\n")
    read = Read(write("d.json", text))
    assert read.values == EXPECTED
    assert read.lines == lines


def test_what_pandas_writes_is_read(write) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(RECORDS)
    for orient in ("records", "columns", "index", "split", "table"):
        for indent in (None, 4):
            content = frame.to_json(orient=orient, indent=indent)
            assert Read(write("d.json", content)).values == EXPECTED, (orient, indent)
    assert Read(write("d.json", frame.to_json(orient="records", lines=True))).values == EXPECTED
    values = write("d.json", frame.to_json(orient="values"))
    assert Read(values, columns=["text", "label"]).values == EXPECTED
    assert refused(values).endswith("got list; name the values of a list, as in data.columns=[text,label]")


# ---------------------------------------------------------------- several values


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_pretty_objects_one_after_another(write, name: str, end: str) -> None:
    content = end.join(json.dumps(record, indent=2).replace("\n", end[-2:]) for record in RECORDS) + end
    path = write(name, content)
    read = Read(path)
    assert read.values == EXPECTED
    assert read.lines == ([1, 5] if end != "\n\n" else [1, 9])
    assert read.notes == [f"{path}: objects that follow each other, each over several lines"]


def test_objects_behind_each_other_in_a_line(write) -> None:
    read = Read(
        write("d.jsonl", json.dumps(RECORDS[0]) + json.dumps(RECORDS[1]) + "\n" + json.dumps(RECORDS[0]))
    )
    assert read.values == [*EXPECTED, EXPECTED[0]]
    assert read.lines == [1, 1, 2]


def test_lists_of_values_are_named_by_the_setting(write) -> None:
    path = write("d.jsonl", "\n".join(json.dumps(list(pair)) for pair in EXPECTED))
    read = Read(path, columns=["text", "label"])
    assert read.values == EXPECTED
    assert read.lines == [1, 2]
    assert read.notes == [f"{path}: rows are lists of values in the order of data.columns"]
    assert "got list; name the values of a list, as in data.columns=[text,label]" in refused(path)


def test_ignored_values_of_a_list(write) -> None:
    read = Read(write("d.json", '[[7, "a", "x"], [8, "b", "y"]]'), columns=["_", "text", "label"])
    assert [row.raw for row in read.rows] == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


SPACY = [["I saw Paris", {"entities": [[6, 11, "LOC"]]}], ["no", {"entities": []}]]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(SPACY),
        json.dumps(SPACY, indent=1),
        "\n".join(map(json.dumps, SPACY)),
        json.dumps({"classes": ["LOC", "PER"], "annotations": SPACY}),
    ],
    ids=["array", "pretty", "lines", "under a key"],
)
def test_a_text_and_an_object_about_it(write, content: str) -> None:
    path = write("d.json", content)
    read = Read(path, need_target=False)
    assert [row.raw for row in read.rows] == [{"text": text, **rest} for text, rest in SPACY]
    assert (
        f"{path}: rows are a text and an object about it, as for spaCy: the text is column 'text'"
        in read.notes
    )


def test_an_array_of_texts_where_no_label_is_needed(write) -> None:
    path = write("d.json", '["a", "b"]')
    assert Read(path, columns_of_task=TEXTS).values == [("a",), ("b",)]
    assert "expected a JSON object" in refused(path)


# ---------------------------------------------------------------- what stays a row


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a", "label": ["x", "y"]},
        {"text": "a", "label": "x", "meta": {"id": 1}, "parts": [{"text": "b", "label": "y"}]},
        {"sentence": "a", "label": "x", "spans": [{"start": 0, "end": 1, "label": "LOC", "text": "a"}]},
        {"title": "a", "label": "x", "items": [{"name": "b"}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_single_row_with_lists_and_objects_stays_a_row(
    write, row: dict[str, object], indent: int | None
) -> None:
    read = Read(write("d.json", json.dumps(row, indent=indent)))
    assert [r.raw for r in read.rows] == [row]
    assert read.notes == []


@pytest.mark.parametrize(
    "row",
    [
        {"tokens": ["a", "b"], "tags": ["O", "B"]},
        {"text": "ab", "entities": [{"start": 0, "end": 1, "label": "X", "text": "a"}]},
        {"data": {"text": "ab"}, "annotations": [{"text": "a", "result": []}]},
    ],
)
def test_a_single_row_with_words_stays_a_row(write, row: dict[str, object]) -> None:

    for columns in (Tag.columns, TEXTS):
        options = ReadOptions(write("d.jsonl", [row]), DataConfig(), columns, BadRows(), print)
        assert [record.values for record in read_records(options)] == [row]


def test_many_rows_are_lines_whatever_they_hold(write) -> None:
    rows = [{"text": f"t{n}", "label": "x", "data": RECORDS} for n in range(3)]
    read = Read(write("d.jsonl", rows))
    assert [row.raw for row in read.rows] == rows
    assert read.lines == [1, 2, 3]


# ---------------------------------------------------------------- what is named


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            json.dumps({"train": RECORDS, "test": RECORDS}),
            ": the object holds rows in 2 places: 'train', 'test'; put each into a file of its own",
        ),
        ('{"text": ["a", "b"], "label": ["x"]}', ": arrays of different lengths are no columns: "),
        ('{"data": [\n {"text": "a"\n "label": "x"}]}', ":1: broken JSON: "),
        (
            '{\n"text": "a", "label": "x"\n},\n{\n"text": "b", "label": "y"\n}',
            ":3: broken JSON: a comma between objects that are in no array: remove it at column 2",
        ),
        (
            '{"columns": ["text", "label"], "data": [["a", "x"], ["b"]]}',
            ": a row under 'data' has 1 values for 2 columns",
        ),
        (
            '{"name": "a", "value": {"b": 1}}',
            ": no column for 'text' and 'label'; columns found: 'name', 'value'",
        ),
        (
            '{"pos": ["a", "b"], "neg": ["c", "d"]}',
            ": no column for 'text' and 'label'; columns found: 'pos', 'neg'",
        ),
    ],
)
def test_shapes_that_are_not_read_are_named(write, content: str, message: str) -> None:
    path = write("d.json", content)
    assert refused(path).startswith(f"{path}{message}")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, '{"a":[' * 100_000])
@pytest.mark.parametrize("name", ["d.json", "d.csv"])
def test_deep_values_are_no_traceback(write, content: str, name: str) -> None:
    path = write(name, content)
    assert refused(path).startswith(f"{path}:1: broken JSON" if name == "d.json" else path)


def test_objects_in_many_objects_are_one_row(write) -> None:
    path = write("d.json", '{"a":' * 400 + '{"data": []}' + "}" * 400)
    assert "columns found: 'a';" in refused(path)


def test_commas_behind_the_objects_of_lines_are_named(write) -> None:
    path = write("d.jsonl", '{"text": "a", "label": "x"},\n{"text": "b", "label": "y"},\n')
    assert "a comma follows the object: remove it, or put all objects into one array" in refused(path)


def test_a_table_under_the_name_of_json_is_named(write) -> None:
    path = write("d.json", "text,label\na,x\n")
    assert "if the file holds no JSON, set data.format to csv, tsv, lines or what it is" in refused(path)
    assert Read(path, format="csv").values == [("a", "x")]


def test_a_broken_first_line_leaves_the_other_lines(write) -> None:
    path = write(
        "d.jsonl", '{"text": "a", "label"\n\n{"text": "b", "label": "y"}\n{"text": "c", "label": "x"}\n'
    )
    read = Read(path)
    assert read.values == [("b", "y"), ("c", "x")]
    assert read.lines == [3, 4]
    assert read.faults.first_messages[0].startswith(f"{path}:1: broken JSON: ")
    assert read.notes == [f"{path}: 1 blank lines skipped"]


# ---------------------------------------------------------------- JSON under another name


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.txt", "d", "d.data"])
@pytest.mark.parametrize(
    "content",
    [
        "\n".join(map(json.dumps, RECORDS)),
        json.dumps(RECORDS, indent=2),
        json.dumps({"data": RECORDS}, indent=2),
    ],
    ids=["lines", "array", "document"],
)
def test_json_under_another_name_is_read_and_said(write, name: str, content: str) -> None:
    path = write(name, content)
    read = Read(path)
    assert read.values == EXPECTED
    assert read.notes[0] == f"{path}: holds JSON, and is read so (set data.format to read it otherwise)"


@pytest.mark.parametrize("content", ["[a],[b]\n1,2\n", "{a},{b}\n1,2\n", "{,b\n1,2\n"])
def test_braces_alone_are_no_json(write, content: str) -> None:
    names = content.split("\n")[0].split(",")
    read = Read(write("d.csv", content), columns={"text": names[0], "label": names[1]})
    assert read.values == [("1", "2")]


@pytest.mark.parametrize(
    "first",
    [
        "[[Category:Dogs]]",
        "[[1]] a note",
        "[{citation needed}]",
        "{",
        "{} is empty",
        '{"a": 1} is JSON',
        "[[",
    ],
)
def test_texts_that_begin_like_json_are_texts(write, first: str) -> None:
    texts = [first, "a cat", "a dog"]
    read = Read(write("d.txt", "\n".join(texts)), columns_of_task=TEXTS)
    assert [fields["text"] for fields in read.fields] == texts


def test_json_of_which_only_the_beginning_is_seen(write) -> None:
    rows = [{"text": f"text {n} " + "word " * 30, "label": "xy"[n % 2]} for n in range(1000)]
    for content in (json.dumps(rows), json.dumps(rows, indent=1), json.dumps({"data": rows})):
        assert len(Read(write("d.csv", content)).rows) == 1000
    whole = json.dumps({"data": [{"text": "a \u597d", "n": 1.5, "b": None, "c": True}] * 3})
    assert all(looks_like_json(whole[:length], is_cut=True) for length in range(2, len(whole) + 1))
    lines = whole + "\n" + whole
    assert all(looks_like_json(lines[:length], is_cut=True) for length in range(2, len(lines) + 1))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 0, 2]))
def test_elements_of_any_array_are_those_that_json_reads(values: list[object], indent: int | None) -> None:
    text = json.dumps(values, indent=indent)
    found = list(read_elements(text, 0))
    assert [value for _, value in found] == values
    for offset, value in found:
        assert json.JSONDecoder().raw_decode(text, offset)[0] == value
