"""out_of_fold.jsonl as other tools read it, and the spread of figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bertune.errors import DataError
from bertune.selection.out_of_fold import OutOfFold, read_out_of_fold, write_predictions
from bertune.selection.spread import Spread
from bertune.types import Entity, Example, Location, Prediction, Span


def test_rows_are_read_as_they_were_written(tmp_path):
    at = Location("数据.jsonl", 3)
    rows = [
        OutOfFold(Example(("好\n的", "b"), "x", at), Prediction("y", 0.5, {"x": 0.5, "y": 0.5}), 1),
        OutOfFold(Example(("a",), ("x", "y"), at), Prediction((), None, {"x": 0.25}), 2),
        OutOfFold(Example(("a",), 1.5, at), Prediction(1.25), 1),
        OutOfFold(Example(("a",), None, at), Prediction(0.5), 1),
        OutOfFold(Example(("ab",), (Span(0, 1, "X"),), at), Prediction((Entity(0, 1, "X", "a", 0.75),)), 3),
    ]
    write_predictions(tmp_path / "out_of_fold.jsonl", rows, "fold")
    assert read_out_of_fold(tmp_path) == read_out_of_fold(str(tmp_path / "out_of_fold.jsonl")) == rows
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"texts": ["a"]}', "text,label", '{"texts": 3}'])
def test_another_file_is_refused_by_its_line(tmp_path, line):
    file = tmp_path / "x.jsonl"
    file.write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"x.jsonl:1: is no row of out_of_fold.jsonl"):
        read_out_of_fold(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_out_of_fold(tmp_path / "nothing")


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=10))
def test_the_spread_is_that_of_scipy(values):
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.deviation == pytest.approx(np.std(values, ddof=1))
    error = stats.sem(values)
    if error > 1e-9:
        assert spread.interval == pytest.approx(
            stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        )
