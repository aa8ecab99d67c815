"""Labels and numbers, however a file writes them, mean one thing."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertune.data.labels import (
    LabelTypeCheck,
    format_label,
    get_label,
    get_labels,
    get_number,
    get_text,
    read_labels,
    sort_labels,
    unknown_label_error,
)
from bertune.errors import ConfigError, DataError
from bertune.types import Example, Location, Row


def row(value: object, part: str = "label") -> Row:
    return Row({part: value}, Location("data.jsonl", 7))


# ---------------------------------------------------------------- one label


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("good", "good"),
        ("  good\t", "good"),
        ("2.0", "2.0"),  # text stays as it is written
        ("True", "True"),
        ("01", "01"),
        (0, "0"),
        (-3, "-3"),
        (2.0, "2"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (True, "true"),
        (False, "false"),
        ("差评", "差评"),
    ],
)
def test_as_label(value: object, label: str) -> None:
    assert format_label(value) == label


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_as_label_of_what_is_not_finite_is_text(value: float) -> None:
    assert format_label(value) == str(value)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("a", "a"),
        (3, "3"),
        (2.0, "2"),
        (0, "0"),
        (False, "false"),
        (None, None),
        ("", None),
        ("  ", None),
        (math.nan, None),
    ],
)
def test_label_of(value: object, label: str | None) -> None:
    assert get_label(row(value), "label") == label
    assert get_label(Row({}, Location("f", 1)), "label") is None


@pytest.mark.parametrize(
    ("value", "kind", "shown"), [(["a", "b"], "list", "\"['a', 'b']\""), ({"a": 1}, "dict", "\"{'a': 1}\"")]
)
def test_label_of_refuses_containers(value: object, kind: str, shown: str) -> None:
    with pytest.raises(DataError) as caught:
        get_label(row(value), "label")
    assert str(caught.value) == (
        f"data.jsonl:7: 'label' must be one label, got {kind} ({shown}); "
        "for several labels a row set options.problem_type=multi_label"
    )


# ---------------------------------------------------------------- several labels


@pytest.mark.parametrize(
    ("value", "delimiter", "labels"),
    [
        ("red|blue", "|", ("red", "blue")),
        (" red | blue |red||", "|", ("red", "blue")),
        ("red, dark|blue", "|", ("red, dark", "blue")),
        ("red|blue", None, ("red|blue",)),
        (" red ", None, ("red",)),
        ("", "|", ()),
        (" ", None, ()),
        ("|", "|", ()),
        ([], None, ()),
        (["a", "b", "a"], None, ("a", "b")),
        (["b", "a"], "|", ("b", "a")),
        (["a|b"], "|", ("a|b",)),
        ([1, 2.0, "3", True], None, ("1", "2", "3", "true")),
        (None, "|", None),
    ],
)
def test_labels_of(value: object, delimiter: str | None, labels: tuple[str, ...] | None) -> None:
    assert get_labels(row(value), "label", delimiter) == labels


@pytest.mark.parametrize("value", [3, {"a": 1}, [["a"]], ["a", None], 2.5])
def test_labels_of_refuses_what_is_no_list_of_labels(value: object) -> None:
    with pytest.raises(DataError) as caught:
        get_labels(row(value), "label", "|")
    assert str(caught.value) == f"data.jsonl:7: 'label' must be a list of labels, got {str(value)!r}"


def test_an_empty_label_in_a_list_is_none() -> None:
    # A former bug: "a||b" has no empty label, but ["a", "", "b"] has; it becomes a label named "".
    assert get_labels(row(["a", "", " ", "b"]), "label", None) == ("a", "b")


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(("value", "text"), [("a dog", "a dog"), (" a ", " a "), (5, "5"), (2.5, "2.5")])
def test_text_of(value: object, text: str) -> None:
    assert get_text(row(value, "text"), "text") == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "'text' is missing; every row needs it"),
        ("", "'text' is empty; remove the row, or set data.bad_rows=skip"),
        (" \n\t\u3000", "'text' is empty; remove the row, or set data.bad_rows=skip"),
        (["a"], "'text' must be text, got list (\"['a']\")"),
        ({}, "'text' must be text, got dict ('{}')"),
    ],
)
def test_text_of_refuses(value: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        get_text(row(value, "text"), "text")
    assert str(caught.value) == f"data.jsonl:7: {message}"


def test_a_text_that_is_nan_is_missing() -> None:
    # A former bug: a NaN (a missing value, as get_label has it) becomes the word "nan" and is trained on.
    with pytest.raises(DataError, match=r"^data\.jsonl:7: 'text' is missing"):
        get_text(row(math.nan, "text"), "text")


# ---------------------------------------------------------------- order of labels


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "9", "1"], ("1", "9", "10")),
        (["0.5", "-1", "3e-5"], ("-1", "3e-5", "0.5")),
        (["b", "a", "10", "B"], ("10", "B", "a", "b")),
        (["1", "01", "1.0"], ("01", "1", "1.0")),  # equal numbers: by code point
        (["坏", "好"], ("坏", "好")),
        (["10", "9", "x"], ("10", "9", "x")),  # one word: all by code point
        ([], ()),
    ],
)
def test_order_labels(labels: list[str], order: tuple[str, ...]) -> None:
    assert sort_labels(labels) == order
    assert sort_labels(reversed(labels)) == order


@settings(deadline=None)
@given(
    st.lists(st.integers(-999, 999).map(str) | st.text(max_size=3), max_size=20),
    st.randoms(use_true_random=False),
)
def test_order_labels_does_not_depend_on_the_order_of_rows(labels: list[str], random) -> None:
    once = sort_labels(labels)
    shuffled = list(labels)
    random.shuffle(shuffled)
    assert sort_labels(shuffled) == once
    assert sorted(once) == sorted(set(labels))


def test_ids_of_labels_are_the_same_in_every_process_when_one_is_nan() -> None:
    # A former bug: the label "nan" (as pandas writes what is missing) is compared as a number, and nothing
    # is less or more than NaN, so the order of ids follows Python's hash seed and another run gives other
    # ids.
    code = "from bertune.data.labels import sort_labels; print(sort_labels([*map(str, range(12)), 'nan']))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(told) == 1, told


# ---------------------------------------------------------------- data.labels


def test_read_labels_from_the_list_or_nothing() -> None:
    assert read_labels(["b", "a"]) == ("b", "a")
    assert read_labels(None) is None


def test_read_labels_from_a_file(write) -> None:
    assert read_labels(write("labels.txt", "\ufeffneg\r\n\r\n pos \n中性")) == ("neg", "pos", "中性")


@pytest.mark.parametrize(("content", "got"), [("", ""), ("\n \n", ""), ("a\nb\na\n", "'a', 'b', 'a'")])
def test_read_labels_refuses_empty_files_and_repeats(write, content: str, got: str) -> None:
    path = write("labels.txt", content)
    with pytest.raises(ConfigError) as caught:
        read_labels(path)
    assert str(caught.value) == f"data.labels: {path!r} must name every label once, one a line, got {got}"


@pytest.mark.parametrize("content", [None, "标签".encode("utf-16")])
def test_read_labels_refuses_files_it_cannot_read(write, tmp_path, content: bytes | None) -> None:
    path = str(tmp_path / "none.txt") if content is None else write("labels.txt", content)
    with pytest.raises(ConfigError) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"data.labels: cannot read {path!r}: ")


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (2.5, 2.5),
        ("4.75", 4.75),
        (" -1e-3 ", -0.001),
        ("0", 0.0),
        (None, None),
        ("", None),
        ("  ", None),
    ],
)
def test_number_of(value: object, number: float | None) -> None:
    assert get_number(row(value), "label") == number


@pytest.mark.parametrize("value", ["good", "1,5", "3 stars", [1.0], {}, "0x10"])
def test_number_of_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(DataError) as caught:
        get_number(row(value), "label")
    assert str(caught.value) == f"data.jsonl:7: 'label' must be a number, got {str(value)!r}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", "-Infinity", "1e999"])
def test_number_of_refuses_what_is_not_finite(value: object) -> None:
    with pytest.raises(DataError) as caught:
        get_number(row(value), "label")
    assert str(caught.value) == f"data.jsonl:7: 'label' must be a finite number, got {value!r}"


@pytest.mark.parametrize("value", [10**400, "1_000"], ids=["an integer beyond fp64", "an underscore"])
def test_number_of_refuses_what_only_python_takes(value: object) -> None:
    # A former bug: float(10**400) raises OverflowError, which is not caught; float("1_000") is 1000.
    with pytest.raises(DataError, match=r"^data\.jsonl:7: 'label' must be a (finite )?number, got "):
        get_number(row(value), "label")


# ---------------------------------------------------------------- one kind of labels


def seen(*values: object, source: str = "f") -> LabelTypeCheck:
    """What has seen these labels, one a line."""
    kind = LabelTypeCheck()
    for line, value in enumerate(values, 1):
        kind.check(Row({"label": value}, Location(source, line)), "label")
    return kind


@pytest.mark.parametrize(
    "values",
    [
        ("a", "b"),
        (1, 2.5, -3),
        (True, False),
        (None, "a", None, "b"),
        (["a"], 1, ["b"]),
        ({"a": 1}, "a"),
        (None,),
        (),
    ],
)
def test_one_kind(values: tuple[object, ...]) -> None:
    seen(*values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1, 2, "3"), "f:3: the label is text ('3'), but a number at f:1; write all labels the same way"),
        (("1", 2), "f:2: the label is a number (2), but text at f:1; write all labels the same way"),
        (
            (None, True, 1),
            "f:3: the label is a number (1), but a boolean at f:2; write all labels the same way",
        ),
        (
            (0.5, False),
            "f:2: the label is a boolean (False), but a number at f:1; write all labels the same way",
        ),
    ],
)
def test_kinds_that_mix(values: tuple[object, ...], message: str) -> None:
    with pytest.raises(DataError) as caught:
        seen(*values)
    assert str(caught.value) == message


def test_each_file_has_a_kind_of_its_own() -> None:
    kind = seen(1, 2)
    kind.check(Row({"label": "1"}, Location("other", 1)), "label")
    with pytest.raises(DataError, match=r"^f:9: the label is text \('1'\), but a number at f:1; "):
        kind.check(Row({"label": "1"}, Location("f", 9)), "label")
    with pytest.raises(DataError, match=r"^other:2: the label is a number \(1\), but text at other:1; "):
        kind.check(Row({"label": 1}, Location("other", 2)), "label")


@pytest.mark.parametrize("values", [("a", math.nan, "b"), (math.nan, "a")])
def test_a_label_that_is_nan_is_missing_and_of_no_kind(values: tuple[object, ...]) -> None:
    # A former bug: get_label takes a NaN for a missing label, LabelTypeCheck for a number, so a column of
    # text with missing values is refused as a mix of kinds, at the wrong row when the missing one comes
    # first.
    seen(*values)


def test_an_unknown_label_names_the_row_and_its_nearest() -> None:
    error = unknown_label_error(
        Example(("a",), "posi", Location("dev.csv", 12)), "positiv", ["negative", "positive"]
    )
    assert isinstance(error, DataError)
    assert str(error) == (
        "dev.csv:12: label 'positiv' is not among the 2 labels learned from the training rows "
        "('negative', 'positive'); "
        "did you mean 'positive'?; fix the row, or name every label in data.labels"
    )
