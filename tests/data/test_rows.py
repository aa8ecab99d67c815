"""All formats give the same rows, with the right line; messages say what to do."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tempfile
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.data.reading import PARTS, Read, refused

from bertune.config.schema import DataConfig
from bertune.data.columns import PAIR_ALIASES, TARGET_ALIASES, TEXT_ALIASES, match_columns
from bertune.data.formats import detect_format
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows, resolve_files
from bertune.errors import ConfigError, DataError
from bertune.tasks.base.reading import read_examples
from bertune.tasks.classify import Classify, ClassifyOptions
from bertune.tasks.tag import Tag
from bertune.types import Columns

# ---------------------------------------------------------------- every format

RECORDS = [{"text": "a good dog, 好", "label": "yes"}, {"text": "no car", "label": "no"}]
EXPECTED = [("a good dog, 好", "yes"), ("no car", "no")]


def parquet(records: list[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), out)
    return out.getvalue()


FORMS: dict[str, tuple[bytes, list[int]]] = {
    "d.csv": ('text,label\n"a good dog, 好",yes\nno car,no\n'.encode(), [2, 3]),
    "d.tsv": ("text\tlabel\na good dog, 好\tyes\nno car\tno\n".encode(), [2, 3]),
    "d.txt": ("text\tlabel\na good dog, 好\tyes\nno car\tno".encode(), [2, 3]),
    "d.jsonl": ("".join(json.dumps(r) + "\n" for r in RECORDS).encode(), [1, 2]),
    "d.ndjson": ("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in RECORDS).encode(), [1, 2]),
    "lines.json": ("\n".join(json.dumps(r) for r in RECORDS).encode(), [1, 2]),
    "array.json": (json.dumps(RECORDS).encode(), [1, 1]),
    "pretty.json": (json.dumps(RECORDS, indent=2, ensure_ascii=False).encode(), [2, 6]),
    "d.parquet": (parquet(RECORDS), [1, 2]),
    "d.pq": (parquet(RECORDS), [1, 2]),
    "D.CSV": ('text,label\n"a good dog, 好",yes\nno car,no\n'.encode(), [2, 3]),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", FORMS)
def test_each_format_gives_the_same_rows(write, name: str, packed: bool) -> None:
    content, lines = FORMS[name]
    path = write(name + ".gz" * packed, gzip.compress(content) if packed else content)
    read = Read(path)
    assert read.values == EXPECTED
    assert read.lines == lines
    assert [str(row.location) for row in read.rows] == [f"{path}:{line}" for line in lines]
    assert [row.raw for row in read.rows] == RECORDS
    assert read.faults.count == 0
    assert read.notes == []


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_data_format_wins_over_the_name(write, kind: str) -> None:
    path = write("d.unknown", FORMS[f"d.{kind}"][0])
    assert Read(path, format=kind).values == EXPECTED


@pytest.mark.parametrize("name", ["data", "data.gz", "data.xlsx", "data.csv.zip"])
def test_a_name_that_does_not_tell_its_format(name: str) -> None:
    with pytest.raises(
        DataError,
        match=re.escape(f"{name}: cannot tell the format from the name; set data.format to csv, tsv"),
    ):
        detect_format(name, DataConfig(), Classify.columns)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "csv"),
        ("a.TXT.GZ", "tsv"),
        ("x.csv/a.jsonl", "jsonl"),
        ("a.v1.2.json", "json"),
        ("a.csv.pq", "parquet"),
    ],
)
def test_format_goes_by_the_last_ending(name: str, kind: str) -> None:
    assert detect_format(name, DataConfig(), Classify.columns) == kind
    assert detect_format(name, DataConfig(), Tag.columns) == ("conll" if kind == "tsv" else kind)


def test_parquet_numbers_rows_over_its_groups_and_keeps_values(write) -> None:
    out = io.BytesIO()
    pq.write_table(
        pa.table({"text": [f"t{i}" for i in range(9000)], "label": pa.array(range(9000))}),
        out,
        row_group_size=1000,
    )
    read = Read(write("d.parquet", out.getvalue()))
    assert read.lines == list(range(1, 9001))
    assert read.values[8999] == ("t8999", 8999)


def test_other_columns_are_kept_raw_and_reported(write) -> None:
    path = write("d.csv", "id,text,label,score\n7,a dog,yes,0.5\n")
    read = Read(path)
    assert read.fields == [{"text": "a dog", "label": "yes"}]
    assert read.rows[0].raw == {"id": "7", "text": "a dog", "label": "yes", "score": "0.5"}
    assert (
        read.table.describe()
        == f"{path}: text = column 'text', label = column 'label'; not used: 'id', 'score'"
    )


def test_numbers_nulls_and_lists_of_json_stay_what_they_are(write) -> None:
    read = Read(write("d.jsonl", '{"text": "a", "label": 3}\n{"text": 5, "label": null}\n{"label": ["x"]}\n'))
    assert read.fields == [
        {"text": "a", "label": 3},
        {"text": 5, "label": None},
        {"text": None, "label": ["x"]},
    ]


# ---------------------------------------------------------------- newlines, quotes, blank lines


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "lines.json", "pretty.json"])
@pytest.mark.parametrize("bom", [False, True], ids=["", "bom"])
def test_crlf_and_byte_order_mark_change_nothing(write, name: str, bom: bool) -> None:
    content, lines = FORMS[name]
    read = Read(write(name, b"\xef\xbb\xbf" * bom + content.replace(b"\n", b"\r\n")))
    assert read.values == EXPECTED
    assert read.lines == lines
    assert list(read.table.mapping) == ["text", "label"]


def test_quoted_newlines_count_as_lines(write) -> None:
    read = Read(write("d.csv", 'text,label\n"one\ntwo\n\nthree",a\nb,b\n"c\r\nd",c\ne,d\n'))
    assert read.values == [("one\ntwo\n\nthree", "a"), ("b", "b"), ("c\r\nd", "c"), ("e", "d")]
    assert read.lines == [2, 6, 7, 9]


def test_doubled_quotation_marks_stand_for_one(write) -> None:
    assert Read(write("d.csv", 'text,label\n"he said ""no""",a\n')).values == [('he said "no"', "a")]


@pytest.mark.parametrize("name", ["d.tsv", "d.txt"])
def test_quotation_marks_are_text_in_tsv(write, name: str) -> None:
    content = 'text\tlabel\n"unclosed\ta\n"whole"\tb\nin"side""\tc\n'
    read = Read(write(name, content))
    assert read.values == [('"unclosed', "a"), ('"whole"', "b"), ('in"side""', "c")]
    assert read.lines == [2, 3, 4]


def test_quotation_marks_quote_in_tsv_when_asked(write) -> None:
    read = Read(write("d.tsv", 'text\tlabel\n"a\tb\nc"\tx\nd\ty\n'), quoting="standard")
    assert read.values == [("a\tb\nc", "x"), ("d", "y")]
    assert read.lines == [2, 4]


def test_quotation_marks_are_text_in_csv_when_asked(write) -> None:
    read = Read(write("d.csv", 'text,label\n"open,a\n'), quoting="none")
    assert read.values == [('"open', "a")]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param('text,label\nfine,a\n"open,b\nmore,c\n', 3, id="never closed"),
        pytest.param('text,label\n"two\nlines",a\n"a "bad" one",b\n', 4, id="not doubled"),
        pytest.param('text,label\n"a\nb" c,x\n', 2, id="the line where the record begins"),
    ],
)
def test_broken_quotation_names_the_record(write, content: str, line: int) -> None:
    path = write("d.csv", content)
    message = refused(path)
    assert message.startswith(f"{path}:{line}: broken quotation: ")
    assert message.endswith(
        "a quotation mark inside a quoted field must be doubled; "
        "if quotation marks are plain text in this file, set data.quoting=none"
    )


def test_only_lf_ends_a_line_of_tsv_and_json(write) -> None:
    odd = "a\u2028b\x85c\x0bd\x0ce\rf"
    tsv = Read(write("d.tsv", f"text\tlabel\n{odd}\tx\ng\ty\n"))
    assert tsv.values == [(odd, "x"), ("g", "y")]
    assert tsv.lines == [2, 3]
    lines = Read(write("d.jsonl", '{"text": "a\u2028b\x85c", "label": 1}\n{"text": "g", "label": 2}\n'))
    assert lines.values == [("a\u2028b\x85c", 1), ("g", 2)]
    assert lines.lines == [1, 2]


def test_only_lf_ends_a_line_of_csv_without_quoting(write) -> None:
    read = Read(write("d.csv", "text,label\nx\ry,1\nz,2\n"), quoting="none")
    assert read.values == [("x\ry", "1"), ("z", "2")]
    assert read.lines == [2, 3]


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("d.csv", "text,label\n\na,x\n\n\nb,y\n", [3, 6]),
        ("d.tsv", "text\tlabel\n\na\tx\n\n\nb\ty\n", [3, 6]),
        ("d.tsv", "text\tlabel\r\n\r\na\tx\r\n\r\n\r\nb\ty\r\n", [3, 6]),
        ("d.jsonl", '{"text": "a", "label": "x"}\n\n  \n{"text": "b", "label": "y"}\n\n', [1, 4]),
        ("d.csv", "\n\ntext,label\na,x\nb,y\n\n", [4, 5]),
    ],
)
def test_blank_lines_are_counted_and_passed_over(write, name: str, content: str, lines: list[int]) -> None:
    path = write(name, content)
    read = Read(path)
    assert read.values == [("a", "x"), ("b", "y")]
    assert read.lines == lines
    assert read.notes == [f"{path}: 3 blank lines skipped"]


# Without a byte-order mark, which is left out where a line begins with it.
CELL = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6))
@example([('"', ","), ("\n", "\n\n"), ("\x85", "\u2028")])
def test_whatever_a_csv_writer_wrote_is_read_back(pairs: list[tuple[str, str]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([("text", "label"), *pairs])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.csv"
        path.write_bytes(out.getvalue().encode())
        read = Read(str(path))
    assert read.values == pairs
    line, lines = 2, []
    for pair in pairs:
        lines.append(line)
        line += 1 + "".join(pair).count("\n")
    assert read.lines == lines
    assert read.faults.count == 0


@settings(deadline=None, max_examples=60)
@given(st.lists(CELL, min_size=1, max_size=6), st.sampled_from([None, 0, 2]), st.sampled_from(["\n", "\r\n"]))
def test_json_lines_and_arrays_are_read_back(texts: list[str], indent: int | None, newline: str) -> None:
    records = [{"text": text, "label": "x"} for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        lines, array = Path(folder) / "d.jsonl", Path(folder) / "d.json"
        lines.write_bytes("".join(json.dumps(r, ensure_ascii=False) + newline for r in records).encode())
        array.write_bytes(
            json.dumps(records, indent=indent, ensure_ascii=False).replace("\n", newline).encode()
        )
        one, other = Read(str(lines)), Read(str(array))
    assert one.fields == other.fields == records
    assert one.lines == list(range(1, len(texts) + 1))
    assert other.lines == ([1] * len(texts) if indent is None else [2 + 4 * n for n in range(len(texts))])


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    "encoding", ["utf-16", "gb18030", "big5", "utf-16-le", "UTF_8", "utf-8-sig", "cp936"]
)
@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "pretty.json", "lines.json"])
def test_named_encodings(write, encoding: str, name: str) -> None:
    content, lines = FORMS[name]
    read = Read(write(name, content.decode().encode(encoding)), encoding=encoding)
    assert read.values == EXPECTED
    assert read.lines == lines


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "UTF8", "utf_8", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "U8", "utf-32-le"],
)
def test_a_byte_order_mark_is_dropped(write, encoding: str) -> None:
    # A former bug: a mark is dropped for utf-8 and utf-16 only, though data.encoding promises it for all.
    mark = "" if encoding in {"utf-16", "utf-8-sig"} else "\ufeff"  # these two write it themselves
    read = Read(write("d.csv", (mark + "text,label\n好,a\n").encode(encoding)), encoding=encoding)
    assert read.fields == [{"text": "好", "label": "a"}]


def test_a_mark_inside_a_line_is_text(write) -> None:
    assert Read(write("d.csv", "text,label\na\ufeffb,\ufeffx\n")).values == [("a\ufeffb", "\ufeffx")]


CHINESE = "text,label\nplain,a\n这家店不错,b\n"


@pytest.mark.parametrize(
    ("written", "said", "line", "advice"),
    [
        ("gb18030", "utf-8", 3, "gb18030"),
        ("utf-8", "gb18030", 3, "utf-8"),
        ("utf-8", "ascii", 3, "utf-8"),
        ("utf-16", "utf-8", 1, "utf-16"),
        ("utf-16", "gb18030", 1, "utf-16"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_the_wrong_encoding_is_named_with_its_line_and_one_that_fits(
    write, written: str, said: str, line: int, advice: str, packed: bool
) -> None:
    data = CHINESE.encode(written)
    path = write("d.csv" + ".gz" * packed, gzip.compress(data) if packed else data)
    message = refused(path, encoding=said)
    assert message.startswith(f"{path}:{line}: not {said} text: ")
    assert message.endswith(f"; it decodes as {advice}: set data.encoding={advice}")


def test_western_text_is_advised_as_such(write) -> None:
    path = write("d.tsv", "text\tlabel\ncafé \tx\n".encode("latin-1"))
    message = refused(path)
    assert message.startswith(f"{path}:2: not utf-8 text: ")
    assert message.endswith("it decodes as cp1252: set data.encoding=cp1252")


def test_big_endian_utf16_is_advised(write) -> None:
    # A former bug: _undecodable cuts the sample between the two bytes of its last newline.
    path = write("d.csv", ("\ufeff" + CHINESE).encode("utf-16-be"))
    assert refused(path).endswith("it decodes as utf-16: set data.encoding=utf-16")


def test_utf16_said_of_a_file_that_is_not(write) -> None:
    # A former bug: Python reports a missing mark as UnicodeError, which _lines does not catch.
    path = write("d.csv", CHINESE)
    message = refused(path, encoding="utf-16")
    assert message.startswith(f"{path}:1: not utf-16 text: ")
    assert message.endswith("it decodes as utf-8: set data.encoding=utf-8")


def test_the_line_of_broken_utf16(write) -> None:
    # A former bug: _undecodable looks for the line by cutting bytes at LF, which halves utf-16 characters.
    path = write("d.csv", ("text,label\n" + "a,x\n" * 5).encode("utf-16")[:-1])
    assert refused(path, encoding="utf-16").startswith(f"{path}:6: not utf-16 text: truncated data")


def test_no_encoding_fits(write) -> None:
    path = write("d.csv", b"text,label\nok,a\n\x81\xff\x81,b\n")
    message = refused(path)
    assert message.startswith(f"{path}:3: not utf-8 text: ")
    assert message.endswith("; set data.encoding to the file's encoding")


# ---------------------------------------------------------------- columns


def test_columns_of_a_file_without_header(write) -> None:
    path = write("cola.tsv", "gj04\t1\t\tthe dog was big\ngj04\t0\t*\tdog the big\n")
    read = Read(path, columns=["_", "label", "_", "text"])
    assert read.fields == [{"text": "the dog was big", "label": "1"}, {"text": "dog the big", "label": "0"}]
    assert read.lines == [1, 2]
    assert read.rows[0].raw == {"column_1": "gj04", "label": "1", "column_3": "", "text": "the dog was big"}
    assert (
        read.table.describe()
        == f"{path}: text = column 'text', label = column 'label'; not used: 'column_1', 'column_3'"
    )


def test_a_first_line_that_repeats_the_names_is_a_header(write) -> None:
    path = write("d.tsv", "Text\tLABEL\na\tx\n")
    read = Read(path, columns=["text", "label"])
    assert read.values == [("a", "x")]
    assert read.lines == [2]
    assert read.notes == [
        f"{path}: the first line repeats the names of data.columns, so it is taken as a header"
    ]


def test_rows_without_label_are_read_when_none_is_needed(write) -> None:
    path = write("d.tsv", "a\tb\nc\td\n")
    read = Read(path, columns=["text", "text_b", "label"], need_target=False)
    assert read.fields == [{"text": "a", "text_b": "b"}, {"text": "c", "text_b": "d"}]
    assert read.notes == [f"{path}: has 2 columns where data.columns names 3: taken as rows without 'label'"]


def test_the_label_may_be_missing_wherever_it_stands_and_whatever_it_is_called(write) -> None:
    read = Read(write("d.tsv", "7\ta\n"), columns=["_", "Score", "text"], need_target=False)
    assert read.fields == [{"text": "a"}]
    assert read.rows[0].raw == {"column_1": "7", "text": "a"}


def test_a_line_of_another_width_is_no_header(write) -> None:
    path = write("d.tsv", "a\tb\tc\nd\tx\n")
    read = Read(path, columns=["text", "label"])
    assert read.values == [("d", "x")]
    assert read.faults.first_messages == [
        f"{path}:1: 3 columns where 2 are expected (text, label); fix the row, or set data.bad_rows=skip; "
        "if it is a header, set data.columns=null"
    ]


def test_one_name_twice_in_data_columns_is_refused(write) -> None:
    # A former bug: nothing refuses data.columns=[text,text,label]; the first of the two columns is silently
    # lost.
    path = write("d.tsv", "a\tb\tx\n")
    with pytest.raises(
        ValueError, match=r"'text'.* twice"
    ):  # ConfigError, DataError and pydantic's error are all ValueErrors
        Read(path, columns=["text", "text", "label"])


@pytest.mark.parametrize("pair", PAIR_ALIASES, ids=" ".join)
def test_known_pairs_of_columns(pair: tuple[str, str]) -> None:
    first, second = pair
    assert match_columns(["id", second, first, "label"], None, PARTS, "f", require_target=True) == {
        "text": first,
        "text_b": second,
        "label": "label",
    }


@pytest.mark.parametrize("name", TEXT_ALIASES)
def test_known_single_columns(name: str) -> None:
    assert match_columns(["id", name, "label"], None, PARTS, "f", require_target=True) == {
        "text": name,
        "label": "label",
    }


@pytest.mark.parametrize("name", TARGET_ALIASES)
def test_known_targets(name: str) -> None:
    assert match_columns(["text", name], None, PARTS, "f", require_target=True) == {
        "text": "text",
        "label": name,
    }


@pytest.mark.parametrize(
    ("header", "mapping"),
    [
        (["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["#1 String", "#2 String", "Quality"]),
        (["index", "sentence 1", "Sentence-2", "Label"], ["sentence 1", "Sentence-2", "Label"]),
        (["PREMISE", "hypothesis", "gold", "label"], ["PREMISE", "hypothesis", "label"]),
        (["id", "question1", "question2", "is_duplicate", "label"], ["question1", "question2", "label"]),
        (["question", "sentence", "label"], ["question", "sentence", "label"]),
        (["Text A", "text_b", "标签"], ["Text A", "text_b", "标签"]),
    ],
)
def test_pair_columns_as_data_sets_write_them(write, header: list[str], mapping: list[str]) -> None:
    read = Read(
        write("d.tsv", "\t".join(header) + "\n" + "\t".join(f"v{n}" for n in range(len(header))) + "\n")
    )
    assert read.table.mapping == dict(zip(["text", "text_b", "label"], mapping, strict=True))
    assert read.values == [tuple(f"v{header.index(name)}" for name in mapping)]


def test_mapping_says_which_column_plays_which_part(write) -> None:
    path = write("d.csv", "text,body,stars\nold,new,5\n")
    read = Read(path, columns={"text": "body", "label": "stars"})
    assert read.fields == [{"text": "new", "label": "5"}]
    assert read.table.describe() == f"{path}: text = column 'body', label = column 'stars'; not used: 'text'"


def test_mapping_of_some_parts_leaves_the_others_to_be_recognised(write) -> None:
    path = write("d.csv", "label,sentence1,sentence2,gold\nskip,a,b,x\n")
    assert Read(path, columns={"label": "gold"}).fields == [{"text": "a", "text_b": "b", "label": "x"}]
    assert Read(path, columns={"text": "sentence2"}).fields == [{"text": "b", "label": "skip"}]


def test_a_mapped_target_may_be_absent_when_none_is_needed(write) -> None:
    path = write("d.csv", "text,id\na,1\n")
    assert Read(path, columns={"label": "gold"}, need_target=False).fields == [{"text": "a"}]
    assert (
        refused(path, columns={"label": "gold"})
        == f"{path}: no column 'gold' for 'label'; columns found: 'text', 'id'"
    )


def test_a_mapped_column_that_is_not_there(write) -> None:
    path = write("d.jsonl", [{"body": "a", "label": 1}])
    assert (
        refused(path, columns={"text": "content"})
        == f"{path}: no column 'content' for 'text'; columns found: 'body', 'label'"
    )


def test_a_part_that_the_task_does_not_have(write) -> None:
    path = write("d.csv", "text,label\na,x\n")
    with pytest.raises(ConfigError) as caught:
        Read(path, columns={"txt": "text"})
    assert (
        str(caught.value) == "data.columns: 'txt' is not a field of this task; did you mean 'text'?; "
        "fields: text, text_b, label"
    )


@pytest.mark.parametrize(
    ("header", "what"),
    [("id,words,label", "'text'"), ("id,text,kind", "'label'"), ("id,words,kind", "'text' and 'label'")],
)
def test_missing_columns(write, header: str, what: str) -> None:
    path = write("d.csv", f"{header}\na,b,c\n")
    found = ", ".join(map(repr, header.split(",")))
    assert refused(path).startswith(
        f"{path}: no column for {what}; columns found: {found}; say which is which, as in data.columns={{"
    )


def test_a_missing_label_is_fine_when_none_is_needed(write) -> None:
    assert Read(write("d.csv", "text\na\n"), need_target=False).fields == [{"text": "a"}]


@pytest.mark.parametrize(
    ("header", "rivals"),
    [
        ("Text,text,label", ("Text", "text")),
        ("text,label,Label", ("label", "Label")),
        ("sentence1,sentence_1,sentence2,label", ("sentence1", "sentence_1")),
    ],
)
def test_two_columns_that_could_play_one_part(write, header: str, rivals: tuple[str, str]) -> None:
    # A former bug: assign promises this DataError, but the last of the columns is silently taken.
    path = write("d.csv", f"{header}\n{','.join('abcd'[: header.count(',') + 1])}\n")
    message = refused(path)
    assert message.startswith(f"{path}: ")
    assert all(repr(name) in message for name in rivals)


def test_json_columns_are_those_of_the_first_record(write) -> None:
    path = write("d.jsonl", [{"words": "a"}])
    assert refused(path).startswith(f"{path}: no column for 'text' and 'label'; columns found: 'words'; ")


@pytest.mark.parametrize(
    ("content", "line"), [("text,id,text\na,1,b\n", 1), ("\n\ntext,id,text\na,1,b\n", 3)]
)
def test_a_header_that_names_a_column_twice(write, content: str, line: int) -> None:
    # A former bug: _header always says line 1, also when blank lines stand above the header.
    path = write("d.csv", content)
    assert refused(path) == f"{path}:{line}: the header names 'text' twice; names found: 'text', 'id', 'text'"


def test_a_column_without_name_gets_one(write) -> None:
    read = Read(write("d.csv", ",text,label\n0,a,x\n1,b,y\n"))
    assert read.rows[0].raw == {"column_1": "0", "text": "a", "label": "x"}


def test_blanks_around_header_names_are_no_part_of_them(write) -> None:
    assert Read(write("d.csv", " text , label \na,x\n")).table.mapping == {"text": "text", "label": "label"}


# ---------------------------------------------------------------- rows that are broken


FIX = "fix the row, or set data.bad_rows=skip"
QUOTED = "a field begins with a quotation mark: if fields are quoted in this file, set data.quoting=standard"
NAMED = {"columns": ["text", "label"]}


@pytest.mark.parametrize(
    ("name", "content", "settings", "line", "columns", "advice"),
    [
        ("d.csv", "text,label\na,x\nb\nc,y\n", {}, 3, 1, FIX),
        ("d.csv", 'text,label\n"a\nb",x\na,b,c\nc,y\n', {}, 4, 3, FIX),
        (
            "d.csv",
            "text,label\na,x\nb\ty\n",
            {},
            3,
            1,
            f"this line is divided by tabs, the file by commas: {FIX}",
        ),
        (
            "d.csv",
            "text,label\na,x\nb;y\n",
            {},
            3,
            1,
            f"this line is divided by semicolons, the file by commas: {FIX}",
        ),
        ("d.tsv", 'text\tlabel\na\tx\n"b\tc"\ty\n', {}, 3, 3, QUOTED),
        ("d.tsv", "a\tx\nb\tc\ty\n", NAMED, 2, 3, FIX),
    ],
)
def test_rows_of_another_width(
    write, name: str, content: str, settings: dict[str, object], line: int, columns: int, advice: str
) -> None:
    path = write(name, content)
    read = Read(path, **settings)
    assert read.faults.first_messages == [
        f"{path}:{line}: {columns} columns where 2 are expected (text, label); {advice}"
    ]
    assert ("a", "x") in read.values or ("a\nb", "x") in read.values
    assert all(len(row.raw) == 2 for row in read.rows)


@pytest.mark.parametrize(
    ("delimiter", "content"),
    [("tab", "text\tlabel\na,b\tx\n"), ("semicolon", "text;label\na,b;x\n"), ("|", "text|label\na,b|x\n")],
)
def test_a_delimiter_of_the_users(write, delimiter: str, content: str) -> None:
    assert Read(write("d.csv", content), delimiter=delimiter).values == [("a,b", "x")]
    assert Read(write("d.tsv", content), delimiter=delimiter).values == [("a,b", "x")]


def test_broken_json_lines_are_named_and_left_out(write) -> None:
    path = write(
        "d.jsonl",
        '{"text": "a", "label": 1}\n\n{"text": "b" "label": 2}\n["c", 3]\n{"text": "d", "label": 4}\n7\n',
    )
    read = Read(path)
    assert read.lines == [1, 5]
    assert read.faults.first_messages == [
        f"{path}:3: broken JSON: Expecting ',' delimiter at column 14; each line must be one object",
        f'{path}:4: expected a JSON object such as {{"text": ...}}, got list; '
        "name the values of a list, as in data.columns=[text,label]",
        f'{path}:6: expected a JSON object such as {{"text": ...}}, got int',
    ]


FIRST = '{"text": "a", "label": 1}'
NO_OBJECT = 'expected a JSON object such as {"text": ...}, got '


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        pytest.param(
            f'[\n {FIRST},\n {{"text": "b" "label": 2}}\n]\n',
            3,
            "broken JSON: Expecting ',' delimiter at column 15",
            id="object",
        ),
        pytest.param(f"[\n {FIRST},\n", 3, "broken JSON: Expecting value at column 1", id="no end"),
        pytest.param(
            f"\n\n[{FIRST},\nx]", 4, "broken JSON: Expecting value at column 1", id="blank lines above"
        ),
        pytest.param(f'[\n {FIRST},\n\n "b"]', 4, NO_OBJECT + "str", id="text"),
        pytest.param('[{"text": "a",\n"label": 1}, 5]', 2, NO_OBJECT + "int", id="number"),
    ],
)
def test_broken_json_arrays_name_the_line(write, content: str, line: int, what: str) -> None:
    path = write("d.json", content)
    assert refused(path) == f"{path}:{line}: {what}"


def test_nothing_may_follow_a_json_array(write) -> None:
    # A former bug: _json_array stops at "]", so the rows of a second array are silently lost.
    path = write("d.json", '[{"text": "a", "label": 1}]\n[{"text": "b", "label": 2}]\n')
    assert refused(path).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    "content", ['[{"text": "a", "label": 1} {"text": "b", "label": 2}]', '[,{"text": "a", "label": 1}]']
)
def test_commas_of_a_json_array_are_checked(write, content: str) -> None:
    # A former bug: _json_array skips any number of commas, none included: not JSON, yet accepted.
    path = write("d.json", content)
    assert refused(path).startswith(f"{path}:1: broken JSON")


@pytest.mark.parametrize("content", ["", "text,label\n", "\n\n"])
def test_a_file_without_rows(write, content: str) -> None:
    path = write("d.csv", content)
    assert refused(path) == f"{path}: holds no rows"


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.parquet"])
def test_other_files_without_rows(write, name: str) -> None:
    empty = parquet(RECORDS)
    if name == "d.parquet":
        out = io.BytesIO()
        pq.write_table(pq.read_table(io.BytesIO(empty)).slice(0, 0), out)
        path = write(name, out.getvalue())
    else:
        path = write(name, "[]" if name == "d.json" else "")
    assert refused(path) == f"{path}: holds no rows"


@pytest.mark.parametrize(
    ("name", "content", "settings", "fault"),
    [
        (
            "d.csv",
            "a/x\nb/y\n",
            NAMED,
            "1: 1 columns where 2 are expected (text, label); fix the row, or set data.bad_rows=skip",
        ),
        ("d.tsv", "1\ta\tx\n2\tb\ty\n", NAMED, "1: 3 columns where 2 are expected (text, label)"),
        (
            "d.jsonl",
            "{'text': 'a'}\n{'text': 'b'}\n",
            {},
            "1: broken JSON: Expecting property name enclosed in double quotes at column 2",
        ),
        ("d.json", '{\n"a": 1,\n}\n', {}, "1: broken JSON: "),
    ],
    ids=["delimiter", "columns", "quotes", "one broken object over lines"],
)
@pytest.mark.parametrize("bad_rows", ["error", "skip"])
def test_when_every_row_is_bad_the_reason_is_told(
    write, name: str, content: str, settings: dict[str, object], fault: str, bad_rows: str
) -> None:
    path = write(name, content)
    data = DataConfig(**settings, bad_rows=bad_rows)
    notes: list[str] = []
    with pytest.raises(DataError) as caught:
        read_examples([path], Classify(ClassifyOptions(), data), data, notes.append)
    assert f"{path}:{fault}" in "\n".join([str(caught.value), *notes])


# ---------------------------------------------------------------- the sum of all faults


def test_faults_end_the_run_with_the_first_in_full_and_the_places_of_more() -> None:
    faults = BadRows()
    assert faults.finish() == []
    faults("f:2: no good")
    with pytest.raises(DataError, match=r"^f:2: no good$"):
        faults.finish()
    faults("f:4: worse")
    with pytest.raises(DataError, match=r"^f:2: no good \(and 1 more bad row: f:4\)$"):
        faults.finish()
    for line in (5, 6, 7, 8, 9):
        faults(f"f:{line}: worse")
    with pytest.raises(DataError, match=r"^f:2: no good \(and 6 more bad rows: f:4, f:5, f:6, f:7, ...\)$"):
        faults.finish()
    assert faults.count == 7


def test_faults_skipped_are_counted_and_told() -> None:
    faults = BadRows(skip=True)
    for line in range(1, 5):
        faults(f"f:{line}: bad")
    assert faults.finish() == [
        "4 rows left out as unusable (data.bad_rows=skip); the first: f:1: bad; f:2: bad; f:3: bad"
    ]


def test_bad_rows_are_left_out_on_request_only(write) -> None:
    path = write("d.csv", "text,label\na,x\nb\n,y\nc,\nd,z\n")
    data = DataConfig(bad_rows="skip")
    notes: list[str] = []
    examples = read_examples([path], Classify(ClassifyOptions(), data), data, notes.append)
    assert [(e.texts, e.target, e.location.line) for e in examples] == [(("a",), "x", 2), (("d",), "z", 6)]
    assert notes[1].startswith(
        "3 rows left out as unusable (data.bad_rows=skip); "
        f"the first: {path}:3: 1 columns where 2 are expected"
    )
    data = DataConfig()
    with pytest.raises(DataError) as caught:
        read_examples([path], Classify(ClassifyOptions(), data), data, notes.append)
    assert str(caught.value).endswith(f"(and 2 more bad rows: {path}:4, {path}:5)")


# ---------------------------------------------------------------- files that cannot be read


def test_a_missing_file_suggests_its_neighbour(write, tmp_path: Path) -> None:
    write("train.csv", "text,label\na,x\n")
    path = str(tmp_path / "trian.csv")
    assert refused(path) == f"{path}: no such file; did you mean 'train.csv'?"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "train.csv")
    assert refused(path) == f"{path}: no such file; the folder '{tmp_path / 'none'}' does not exist either"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "set.csv"
    folder.mkdir()
    assert refused(str(folder)) == f"{folder}: is a folder; give a file, or a list of files"


PACKED = gzip.compress(
    ("text,label\n" + "".join(f"word {n * 7919 % 1009},{n % 7}\n" for n in range(2000))).encode()
)
DAMAGE = {
    "truncated": PACKED[: len(PACKED) // 2],
    "not gzip": b"text,label\na,x\n",
    "checksum": PACKED[:-8] + bytes(b ^ 255 for b in PACKED[-8:-4]) + PACKED[-4:],
    "inside": PACKED[:300] + bytes(b ^ 255 for b in PACKED[300:400]) + PACKED[400:],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_gzip(write, how: str) -> None:
    path = write("d.csv.gz", DAMAGE[how])
    assert refused(path).startswith(f"{path}: the compressed file is damaged: ")


@pytest.mark.parametrize("how", ["truncated", "not gzip"])
def test_damaged_gzip_of_parquet(write, how: str) -> None:
    path = write("d.parquet.gz", DAMAGE[how])
    assert refused(path).startswith(f"{path}: not a readable parquet file: ")


def test_a_file_that_is_no_parquet(write) -> None:
    path = write("d.parquet", "text,label\na,x\n")
    assert refused(path).startswith(f"{path}: not a readable parquet file: ")


def test_damaged_parquet(write) -> None:
    # A former bug: pyarrow reports damaged pages as OSError, which _parquet does not catch.
    data = bytearray(parquet([{"text": f"word {n}", "label": n} for n in range(2000)]))
    data[40:400] = b"\xff" * 360
    path = write("d.parquet", bytes(data))
    assert refused(path).startswith(f"{path}: not a readable parquet file: ")


# ---------------------------------------------------------------- hub:


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a data set, with the cache of `datasets` inside the test's folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    folder = tmp_path / "reviews"
    folder.mkdir()
    return folder


def test_hub_reads_a_local_folder_split_by_split(hub: Path) -> None:
    (hub / "train.csv").write_text("sentence,label\na good dog,pos\na bad dog,neg\n")
    (hub / "test.csv").write_text("sentence,label\na fine dog,pos\n")
    read = Read(f"hub:{hub}")
    assert read.fields == [{"text": "a good dog", "label": "pos"}, {"text": "a bad dog", "label": "neg"}]
    assert [str(row.location) for row in read.rows] == [f"hub:{hub}:1", f"hub:{hub}:2"]
    assert Read(f"hub:{hub}:test").fields == [{"text": "a fine dog", "label": "pos"}]
    message = refused(f"hub:{hub}:validation")
    assert message.startswith(f"hub:{hub}:validation: cannot be loaded from the Hub: ")
    assert "\n" not in message


def test_hub_gives_class_labels_by_name_and_minus_one_as_missing(hub: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, -1, 0]}, features=features)
    table.to_parquet(str(hub / "train.parquet"))
    assert Read(f"hub:{hub}").values == [("a", "good"), ("b", None), ("c", "bad")]


def test_hub_name_that_does_not_exist(hub: Path) -> None:
    message = refused("hub:nobody-at-all/no-such-set")
    assert message.startswith("hub:nobody-at-all/no-such-set: cannot be loaded from the Hub: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("given_files", "split", "files"),
    [
        (None, "train", []),
        ("a.csv", "train", ["a.csv"]),
        (["a.csv", "b.csv"], "dev", ["a.csv", "b.csv"]),
        ("hub:glue/cola", "train", ["hub:glue/cola:train"]),
        ("hub:glue/cola", "dev", ["hub:glue/cola:validation"]),
        (["hub:glue/cola", "x.tsv"], "test", ["hub:glue/cola:test", "x.tsv"]),
        ("hub:glue/mnli:validation_matched", "dev", ["hub:glue/mnli:validation_matched"]),
    ],
)
def test_files_of_a_split(given_files: str | list[str] | None, split: str, files: list[str]) -> None:
    assert resolve_files(given_files, split) == files


def test_json_rows_with_other_parts_than_the_first_are_faults(write, tmp_path):
    rows = [
        {"text": "a", "label": "x"},
        {"text": "b", "text_b": "c", "label": "y"},
        {"text": "d", "label": "x", "note": 1},
    ]
    faults, notes = BadRows(), []
    table = open_rows(
        ReadOptions(
            write("t.jsonl", rows),
            DataConfig(),
            Columns(("text",), ("text_b",), "label"),
            faults,
            notes.append,
        )
    )
    assert [row.fields for row in table] == [{"text": "a", "label": "x"}, {"text": "d", "label": "x"}]
    assert faults.count == 1
    assert "t.jsonl:2: has other fields than the first row (text_b)" in faults.first_messages[0]


def test_a_list_of_columns_is_not_for_files_with_names(write):
    notes = []
    file = write("t.jsonl", [{"text": "a", "label": "x"}])
    list(
        open_rows(
            ReadOptions(
                file,
                DataConfig(columns=["text", "label"]),
                Columns(("text",), (), "label"),
                BadRows(),
                notes.append,
            )
        )
    )
    assert "has names of its own" in notes[0]
