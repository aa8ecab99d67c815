"""Tables that are divided in another way than their name says, odd quotation marks, and headers."""

from __future__ import annotations

import pytest
from tests.data.reading import TEXTS, Read, refused

ROWS = [("a, b", "x"), ("c", "y")]
NAMED = {"columns": ["text", "label"]}


def divided(path: str, by: str, usual: str, kind: str) -> str:
    return (
        f"{path}: columns are divided by {by}, not by {usual} as in other {kind} files, and are read so "
        "(set data.delimiter to read it otherwise)"
    )


# ---------------------------------------------------------------- the delimiter


@pytest.mark.parametrize(
    ("name", "content", "by", "usual", "kind"),
    [
        ("d.csv", "text;label\na, b;x\nc;y\n", "semicolons", "commas", "csv"),
        ("d.csv", "text|label\na, b|x\nc|y\n", "pipes", "commas", "csv"),
        ("d.csv", "text\tlabel\na, b\tx\nc\ty\n", "tabs", "commas", "csv"),
        ("d.csv", '"text";"label"\r\n"a, b";"x"\r\n"c";"y"\r\n', "semicolons", "commas", "csv"),
        ("d.tsv", 'text,label\n"a, b",x\nc,y\n', "commas", "tabs", "tsv"),
        ("d.txt", "text;label\na, b;x\nc;y\n", "semicolons", "tabs", "tsv"),
        ("d.csv", "text^label\na, b^x\nc^y\n", "'^'", "commas", "csv"),
        ("d.csv", "text:label\na, b:x\nc:y\n", "colons", "commas", "csv"),
        ("d.txt", "文本，标签\na, b，x\nc，y\n", "'，'", "tabs", "tsv"),
        ("d.csv", "text;label\na, b;x\nc; c;y\nc;y\n", "semicolons", "commas", "csv"),
    ],
)
def test_another_delimiter_is_recognised_by_the_header_and_said(
    write, name: str, content: str, by: str, usual: str, kind: str
) -> None:
    path = write(name, content)
    read = Read(path)
    assert read.values == ROWS
    assert divided(path, by, usual, kind) in read.notes


@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_another_delimiter_where_columns_are_mapped_or_the_label_is_not_needed(write, suffix: str) -> None:
    path = write(f"d.{suffix}", "opinión;tono\na, b;x\nc;y\n")
    assert Read(path, columns={"text": "opinión", "label": "tono"}).values == ROWS
    path = write(f"new.{suffix}", "id;text\n1;a, b\n2;c\n")
    assert Read(path, need_target=False).values == [("a, b",), ("c",)]
    path = write(f"pairs.{suffix}", "text;positive\na, b;c\nd;e\n")
    assert Read(path, columns_of_task=TEXTS).rows[0].raw == {"text": "a, b", "positive": "c"}


def test_unknown_names_are_told_one_by_one(write) -> None:
    path = write("d.csv", "opinión;tono\na, b;x\nc;y\n")
    assert "columns found: 'opinión', 'tono'" in refused(path)


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("d.csv", "a b;x\nc, d, e;y\n", [("a b", "x"), ("c, d, e", "y")]),
        ("d.txt", "a|x\nb|y\n", [("a", "x"), ("b", "y")]),
        ("d.tsv", "a,x\nb,y\n", [("a", "x"), ("b", "y")]),
        # One comma in each text: labels repeat, pieces of texts do not.
        (
            "d.csv",
            "a, b;x\nc, d;y\ne, f;x\ng, h;y\n",
            [("a, b", "x"), ("c, d", "y"), ("e, f", "x"), ("g, h", "y")],
        ),
    ],
)
def test_another_delimiter_is_recognised_without_header(write, name: str, content: str, rows: object) -> None:
    read = Read(write(name, content), **NAMED)
    assert read.values == rows
    assert len(read.notes) == 1
    assert "columns are divided by" in read.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("d.csv", "text,label\na;b,x\nc;d,y\n", {}),
        ("d.csv", "a; b,x\nc; d,y\ne; f,x\ng; h,y\n", NAMED),
        ("d.csv", "a; b,1.5\nc; d,2.5\n", NAMED),
        ("d.tsv", "text\tlabel\na, b\tx, y\n", {}),
        ("d.tsv", "a|b,c\tx|y\nd|e\tz\n", NAMED),
        ("d.csv", "text,label\na;b;c,x\na|b,y\n", {"delimiter": "comma"}),
    ],
)
def test_the_usual_delimiter_stays_where_it_fits(write, name: str, content: str, settings: dict) -> None:
    read = Read(write(name, content), **settings)
    usual = "," if name == "d.csv" else "\t"
    lines = content.splitlines()[0 if "columns" in settings else 1 :]
    assert read.values == [tuple(line.split(usual)) for line in lines]
    assert read.notes == []


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_texts_a_line_are_not_divided(write, suffix: str) -> None:
    texts = ["Question, title", "one, two", "three, four", "five; six | seven"]
    read = Read(
        write(f"d.{suffix}", "\n".join(texts[:4])), columns_of_task=TEXTS, columns=["text"], delimiter="tab"
    )
    assert [fields["text"] for fields in read.fields] == texts
    lines = ["Well; that is a question of taste", "yes; it is"]
    read = Read(write("d.txt", "\n".join(lines)), columns_of_task=TEXTS)
    assert [fields["text"] for fields in read.fields] == lines


@pytest.mark.parametrize(
    ("first", "delimiter"),
    [("sep=;", ";"), ('"sep=;"', ";"), ("SEP=|", "|"), ("sep=\t", "\t"), ("sep=,", ",")],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_first_line_of_excel_names_the_delimiter(write, first: str, delimiter: str, end: str) -> None:
    lines = [first, f"text{delimiter}label", f"a{delimiter}x", "", f"b{delimiter}y"]
    path = write("d.csv", "\ufeff" + end.join(lines) + end)
    read = Read(path)
    assert read.values == [("a", "x"), ("b", "y")]
    assert read.lines == [3, 5]
    assert read.notes[0] == f"{path}: the first line, sep={delimiter}, names the delimiter, as for Excel"


def test_the_first_line_of_excel_above_rows_without_header(write) -> None:
    read = Read(write("d.csv", "sep=;\na, b;x\nc;y\n"), **NAMED)
    assert read.values == ROWS
    assert read.lines == [2, 3]


@pytest.mark.parametrize(
    ("given", "content", "named", "what"),
    [
        ("semicolon", "text,label\na,x\n", "semicolons", "commas; set data.delimiter=comma"),
        ("tab", "text;label\na;x\n", "tabs", "semicolons; set data.delimiter=semicolon"),
        ("|", "text\tlabel\na\tx\n", "pipes", "tabs; set data.delimiter=tab"),
    ],
)
def test_a_delimiter_that_divides_nothing_is_refused(
    write, given: str, content: str, named: str, what: str
) -> None:
    path = write("d.csv", content)
    assert (
        refused(path, delimiter=given)
        == f"{path}: no line is divided by {named} (data.delimiter), but by {what}"
    )
    advised = what.split("=")[1]
    assert Read(path, delimiter=advised).values == [("a", "x")]


@pytest.mark.parametrize("delimiter", ["||", "::", "##"])
def test_a_delimiter_of_several_characters_is_named(write, delimiter: str) -> None:
    path = write("d.csv", f"text{delimiter}label\na, b{delimiter}x\n")
    assert refused(path) == (
        f"{path}: columns are divided by {delimiter!r}, and a delimiter is one character; "
        f"replace it, as in: sed 's/{delimiter}/\\t/g' {path!r} > new.tsv"
    )


def test_one_column_with_a_delimiter_is_read(write) -> None:
    assert Read(write("d.csv", "text\na, b\n"), need_target=False, delimiter="tab").values == [("a, b",)]


# ---------------------------------------------------------------- blanks before quotation marks


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('text, label\n"a, b", "x"\n"c", "y"\n', ROWS),
        ('text,label\n  "a, b",   "x"\n  "c", "y"\n', ROWS),
        ('text; label\n"a, b"; "x"\n"c"; "y"\n', ROWS),
        ('label, text\nx, "a, b"\ny, "c"\n', [("a, b", "x"), ("c", "y")]),
        ('text, label\n"a ""b"", c", "x"\n', [('a "b", c', "x")]),
    ],
)
def test_blanks_before_quoted_fields_are_left_out_and_said(write, content: str, rows: object) -> None:
    path = write("d.csv", content)
    read = Read(path)
    assert read.values == rows
    assert read.faults.count == 0
    assert f"{path}: blanks before quoted fields are no part of the fields" in read.notes


@pytest.mark.parametrize("row", ['"a" ,"x"', '"a","x" ', '"a"x,y'])
def test_blanks_behind_quoted_fields_are_named(write, row: str) -> None:
    path = write("d.csv", f"text,label\nb,y\n{row}\nc,y\n")
    message = refused(path)
    assert message.startswith(f"{path}:3: broken quotation: ")
    assert "not even a blank may stand behind a closing mark" in message


def test_blanks_before_quoted_fields_far_below(write) -> None:
    path = write("d.csv", "text,label\n" + "a,x\n" * 300 + 'b, "y"\nc, "say ""z"""\n')
    read = Read(path)
    assert read.values[-2:] == [("b", "y"), ("c", 'say "z"')]
    assert read.notes == [f"{path}: 2 fields have a blank before their quotation marks: read without both"]


def test_blanks_without_quotation_marks_stay(write) -> None:
    read = Read(write("d.csv", 'text,label\n  a "b" c,x\n b,"y"\n'))
    assert read.values == [('  a "b" c', "x"), (" b", "y")]
    assert read.notes == []


# ---------------------------------------------------------------- a quoted field that swallows rows


SWALLOWED = "".join(f"text {n},{'xy'[n % 2]}\n" for n in range(500))


@pytest.mark.parametrize(
    ("name", "content", "settings", "place", "num_lines"),
    [
        (
            "d.csv",
            f'text,label\na,x\n"open,x\n{SWALLOWED}close",y\nb,y\n',
            {},
            "3-504",
            502,
        ),
        ("d.csv", f'"open,x\n{SWALLOWED}close",y\nb,y\n', NAMED, "1-502", 502),
        ("d.csv", 'text,label\na,"x\nb,y\nc,y\nd,x\ne,x"\n', {}, "2-6", 5),
        (
            "d.tsv",
            'text\tlabel\n"open\tx\n' + SWALLOWED.replace(",", "\t") + 'close"\ty\n',
            {"quoting": "standard"},
            "2-503",
            502,
        ),
        (
            "d.csv",
            'id;text;label\n1;"a;x\n2;b;y\n3;c;y\n4;d;x\n5;e";x\n',
            {},
            "2-6",
            5,
        ),
    ],
    ids=["csv", "first line", "few rows", "tsv", "semicolons"],
)
def test_a_field_that_swallows_rows_is_said_with_its_lines(
    write, name: str, content: str, settings: dict, place: str, num_lines: int
) -> None:
    path = write(name, content)
    read = Read(path, **settings)
    fault = f"{path}:{place}: one quoted field spans {num_lines} lines, and they look like rows ("
    said = [note for note in read.notes if note.startswith(fault)]
    assert len(said) == 1
    assert "a quotation mark may be missing or too many" in said[0]
    assert said[0].endswith("if quotation marks are plain text in this file, set data.quoting=none")


def test_several_such_fields_are_counted(write) -> None:
    field = '"a,x\nb,y\nc,y\nd,x\ne",x\n'
    path = write("d.csv", "text,label\n" + field * 3)
    assert "(2-6" not in Read(path).notes[0]
    assert "; 2 more fields are so; " in Read(path).notes[0]
    assert len(Read(path).notes) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Dear all,\n\nthank you, really.\nIt was good, very.\nCome again, soon.\n\nYours, A",
        "roses are red, \nviolets are blue, yes\nsugar is sweet, no\nand, so are you\nthe end",
        "\n".join(f"line {n} of a long text" for n in range(300)),
        "def f(a, b):\n    return a, b\n\nprint(f(1, 2))\nx = (1,2,3)\ny = 1\n",
    ],
)
def test_long_texts_are_left_alone(write, text: str) -> None:
    read = Read(write("d.csv", f'text,label\n"{text}",x\nb,y\n'))
    assert read.values == [(text, "x"), ("b", "y")]
    assert read.notes == []


# ---------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (["Review", "Sentiment"], ["text", "label"]),
        (["sentence1", "sentence2", "gold"], ["text", "text_b", "label"]),
        (["标签", "文本"], ["label", "text"]),
        (["id", "Comment", "Rating"], ["_", "text", "label"]),
        (["text", "polarity"], ["text", "label"]),
    ],
)
@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
def test_a_header_above_listed_columns_is_no_row(
    write, header: list[str], columns: list[str], name: str
) -> None:
    delimiter = "," if name == "d.csv" else "\t"
    rows = [[f"some words {n}" if c.startswith("text") else f"v{n % 2}" for c in columns] for n in range(6)]
    path = write(name, "\n".join(delimiter.join(row) for row in [header, *rows]))
    read = Read(path, columns=columns)
    assert len(read.rows) == 6
    assert {fields["label"] for fields in read.fields} == {"v0", "v1"}
    assert read.notes[0].startswith(f"{path}:1: the first line (")
    assert "so it is taken as a header; if it is a row, move it down" in read.notes[0]


@pytest.mark.parametrize("header", ["label,text", "Label,TEXT"])
def test_a_header_in_another_order_than_data_columns_is_refused(write, header: str) -> None:
    path = write("d.csv", f"{header}\nx,a dog\ny,a cat\n")
    names = ", ".join(map(repr, header.split(",")))
    assert refused(path, **NAMED) == (
        f"{path}:1: the first line names the columns in the order {names}, data.columns in the order "
        "'text', 'label'; leave data.columns out, and the first line counts"
    )
    assert Read(path).values == [("a dog", "x"), ("a cat", "y")]


def test_words_above_numbers_are_a_header(write) -> None:
    path = write("d.csv", "utterance,tone\ngood words,1\nbad words,0\n")
    read = Read(path, **NAMED)
    assert read.values == [("good words", "1"), ("bad words", "0")]
    assert "has words where the rows have numbers" in read.notes[0]


def test_a_line_that_may_be_a_header_is_said_with_what_to_set(write) -> None:
    path = write("d.csv", "utterance,tone\n" + "good words,pos\nbad words,neg\n" * 3)
    read = Read(path, **NAMED)
    assert read.values[0] == ("utterance", "tone")
    assert read.notes == [
        f"{path}:1: the first line ('utterance', 'tone') is read as a row, but may be a header: none of the "
        "next 6 rows has 'tone'; if it is one, set data.columns={text: utterance, label: tone}"
    ]
    assert len(Read(path, columns={"text": "utterance", "label": "tone"}).rows) == 6


@pytest.mark.parametrize(
    "content",
    [
        "good,pos\nbad,neg\nfine,pos\npoor,neg\nnice,pos\n",
        "A text with more words,first\nb,x\nc,y\nd,x\ne,y\n",
        "这家店的东西很不错,好\n坏,坏\n好,好吃\n",
        "what?,0\nwho,1\nwhen,0\n",
        "title\tx\nreview\ty\n",
        "good,unknown\nbad,1\nfine,0\n",
    ],
)
def test_rows_below_listed_columns_stay_rows(write, content: str) -> None:
    read = Read(write("d.tsv" if "\t" in content else "d.csv", content), **NAMED)
    assert len(read.rows) == content.count("\n")
    assert read.notes == []


def test_a_header_without_the_label_above_listed_columns(write) -> None:
    path = write("d.csv", "text\na\nb\n")
    assert Read(path, need_target=False, **NAMED).values == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv", "text,label\na,x\nText,Label\nb,y\ntext,label\nc,x\n"),
        ("d.csv", "text,label\na,x\n\ufefftext,label\nb,y\n text , label \nc,x\n"),
        ("d.tsv", "text\tlabel\r\na\tx\r\ntext\tlabel\r\nb\ty\r\ntext\tlabel\r\nc\tx\r\n"),
    ],
)
def test_the_header_of_joined_files_is_left_out_and_said(write, name: str, content: str) -> None:
    path = write(name, content)
    read = Read(path)
    assert read.values == [("a", "x"), ("b", "y"), ("c", "x")]
    assert f"{path}:3: the header again, as of joined files: 2 such lines left out (3, 5)" in read.notes


def test_the_name_of_a_single_column_may_be_a_text(write) -> None:
    path = write("d.csv", "title\na\ntitle\nb\n")
    read = Read(path, columns_of_task=TEXTS)
    assert read.values == [("a",), ("title",), ("b",)]
    assert read.notes == [
        f"{path}:3: the name of the column again, read as a text (3); remove it if it is none"
    ]


def test_a_row_with_one_word_of_the_header_stays(write) -> None:
    read = Read(write("d.csv", "text,label\ntext,x\na,label\n"))
    assert read.values == [("text", "x"), ("a", "label")]
    assert read.notes == []


def test_a_text_file_whose_first_line_may_be_a_text(write) -> None:
    path = write("d.txt", "title\na cat\na dog\n")
    read = Read(path, columns_of_task=TEXTS)
    assert read.values == [("a cat",), ("a dog",)]
    assert read.notes == [
        f"{path}:1: the first line, 'title', is taken as the name of the column; "
        "if it is a text, set data.columns=[text]"
    ]
    again = Read(path, columns_of_task=TEXTS, columns=["text"])
    assert again.values == [("title",), ("a cat",), ("a dog",)]
    assert again.notes == []


def test_a_listed_name_above_rows_that_lack_the_label(write) -> None:
    path = write("d.tsv", "Review\tId\ngood words\t7\nbad words\t8\n")
    read = Read(path, need_target=False, columns=["text", "id", "label"])
    assert read.values == [("good words",), ("bad words",)]
    assert any("so it is taken as a header" in note for note in read.notes)
    path = write("one.tsv", "Review\ngood words\nbad words\n")
    read = Read(path, need_target=False, columns=["text", "label"])
    assert read.values == [("Review",), ("good words",), ("bad words",)]
    assert read.notes[1] == (
        f"{path}:1: the first line ('Review') is read as a row, but may be a header; if it is one, remove it"
    )


# ---------------------------------------------------------------- quotation marks as part of values


@pytest.mark.parametrize(
    "content",
    [
        '"text"\t"label"\n"a, b"\t"x"\n"c"\t"y"\n',
        'text\tlabel\na, b\t"x"\nc\t"y"\n',
        '"text"\tlabel\n"a, b"\tx\n"c"\ty\n',
    ],
)
def test_quotation_marks_around_every_field_of_a_tsv_column(write, content: str) -> None:
    path = write("d.tsv", content)
    read = Read(path)
    assert read.values == ROWS
    how = "quotation marks around fields are no part of them (set data.quoting=none to keep them)"
    assert read.notes == [f"{path}: {how}"]
    kept = Read(path, quoting="none", columns=["text", "label"])
    assert any('"' in value for value in kept.values[-1])


@pytest.mark.parametrize("marks", ["''", "``", "“”", "‘’"])
@pytest.mark.parametrize(("name", "delimiter"), [("d.csv", ","), ("d.tsv", "\t")])
def test_other_marks_around_fields_are_said(write, marks: str, name: str, delimiter: str) -> None:
    rows = [f"a {n}{delimiter}{marks[0]}{'xy'[n % 2]}{marks[1]}\n" for n in range(4)]
    path = write(name, f"text{delimiter}label\n" + "".join(rows))
    read = Read(path)
    assert read.values[0] == ("a 0", f"{marks[0]}x{marks[1]}")
    assert len(read.notes) == 1
    assert (
        f"fields begin with {marks[0]} and end with {marks[1]}, and are read with these marks"
        in read.notes[0]
    )


def test_texts_between_marks_stay_so(write) -> None:
    texts = [f"“a text of some length, number {n}, between marks”" for n in range(4)]
    read = Read(write("d.tsv", "text\tlabel\n" + "".join(f"{text}\tx\n" for text in texts)))
    assert [value[0] for value in read.values] == texts
    assert read.notes == []
    quoted = [text.replace("“", '"').replace("”", '"') for text in texts]
    read = Read(write("d.tsv", "text\tlabel\n" + "".join(f"{text}\tx\n" for text in quoted)))
    assert [value[0] for value in read.values] == quoted
    assert read.notes == []


def test_marks_in_some_values_are_text(write) -> None:
    content = 'text\tlabel\n"a"\tx\n"b" he said\ty\n\'c\'\tx\n'
    read = Read(write("d.tsv", content))
    assert [value[0] for value in read.values] == ['"a"', '"b" he said', "'c'"]
    assert read.notes == []


def test_a_blank_before_a_quotation_mark_inside_a_text(write) -> None:
    read = Read(write("d.csv", 'text,label\n "Hello" he said,x\nb,y\n'))
    assert read.values == [(' "Hello" he said', "x"), ("b", "y")]
    assert read.notes == []


def test_delimiters_in_the_only_column_get_advice_that_works(write) -> None:
    path = write("d.csv", "text\none, two\nthree\n")
    fault = Read(path, need_target=False).faults.first_messages[0]
    assert fault.endswith("if commas are part of the texts, set data.delimiter=tab, or fix the row")
    assert Read(path, need_target=False, delimiter="tab").values == [("one, two",), ("three",)]
