"""Labels that settings name: by text, else by value; and which rows data.drop_labels leaves out."""

from __future__ import annotations

import pytest

from bertune.data.label_settings import LabelFilter, all_labels, find_labels, label_value, unknown_labels
from bertune.errors import ConfigError


@pytest.mark.parametrize(
    "same",
    [
        ["2", "02", "2.0", "2.00", "+2"], ["1000", "1e3", "1E3"], ["True", "true", "TRUE"],
        ["null", "None", "NULL", "~"], ["0", "-0", "0.0"],
    ],
)  # fmt: skip
def test_labels_of_one_value(same: list[str]) -> None:
    assert len({label_value(label) for label in same}) == 1


@pytest.mark.parametrize("others", [["1", "true"], ["Late", "late"], ["1_000", "1000"], ["nan", "inf", ""]])
def test_labels_of_other_values(others: list[str]) -> None:
    assert len({label_value(label) for label in others}) == len(others)


@pytest.mark.parametrize(
    ("given", "labels", "found"),
    [
        (["02"], ["00", "02"], {"02": "02"}),
        (["2"], ["00", "02"], {"2": "02"}),
        (["2"], ["2", "02"], {"2": "2"}),
        (["2", "02"], ["2", "02"], {"2": "2", "02": "02"}),
        (["2", "3"], ["2.0"], {"2": "2.0"}),
        (["x"], ["a"], {}),
        (["true", "false"], ["False", "True"], {"true": "True", "false": "False"}),
    ],
)
def test_labels_are_found(given: list[str], labels: list[str], found: dict[str, str]) -> None:
    assert find_labels(given, labels, "data.labels") == found


def test_what_may_mean_two_labels_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.labels: '2' may mean '02' or '2\.0'; write the label in quotes"
    ):
        find_labels(["2"], ["02", "2.0"], "data.labels")
    with pytest.raises(ConfigError, match=r"^x: '2\.0' and '2' are both the label '02'"):
        find_labels(["2", "2.0"], ["02"], "x")


def test_all_labels_are_as_the_rows_write_them() -> None:
    assert all_labels(["1", "0", "7"], ["00", "01"]) == ("01", "00", "7")
    assert all_labels(None, ["10", "9"]) == ("9", "10")


def test_unknown_labels_have_suggestions() -> None:
    assert unknown_labels(["positiv", "q"], ["negative", "positive"]) == (
        "'positiv' (did you mean 'positive'?), 'q'; labels: 'negative', 'positive'"
    )


def dropped(given: list[str], targets: list[object]) -> list[int]:
    """The numbers of the rows that are left out."""
    chosen = LabelFilter(given)
    kept = []
    for number, target in enumerate(targets):
        if not chosen.drops(target, len(kept)):
            kept.append(number)
    late = [kept[index] for index in chosen.finish_file()]
    return sorted({*range(len(targets))} - {*kept} | {*late})


@pytest.mark.parametrize(
    ("given", "targets", "rows"),
    [
        (["b"], ["a", "b", "c"], [1]),
        (["2"], ["02", "01", "02"], [0, 2]),
        (["2"], ["02", "2", "01"], [1]),
        (["0"], [1, 0, 0.0, 1], [1, 2]),
        (["-1"], [-1.0, 0.5], [0]),
        (["b"], [("a",), ("a", "b"), ()], [1]),
        (["2"], [("02",), ("1", "02"), ("1",)], [0, 1]),
        (["x"], ["a", "b"], []),
        (["None"], ["a", None], [1]),
        ([], ["a"], []),
    ],
)
def test_rows_that_are_left_out(given: list[str], targets: list[object], rows: list[int]) -> None:
    assert dropped(given, targets) == rows


def test_an_ambiguous_label_to_drop_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.drop_labels: '2' may mean "):
        dropped(["2"], ["02", "2.0"])


def test_labels_that_no_row_had() -> None:
    chosen = LabelFilter(["late", "gone", "2"])
    for target in ("late", "02", "gon"):
        chosen.drops(target, 0)
    chosen.finish_file()
    (line,) = chosen.idle()
    assert line == (
        "data.drop_labels has no effect for 'gone' (did you mean 'gon'?); labels: '02', 'gon': no row has it"
    )
