"""trials.jsonl: a line a trial, whole or as it was, read back as it was written."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.selection.made_studies import make_study

from bertune.errors import ConfigError, DataError
from bertune.selection.trials import Study, Trial
from bertune.selection.trials_file import STUDY, TRIALS, read_trials, write_trials

SCORES = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | SCORES | st.text(),
    lambda v: st.lists(v, max_size=3),
    max_leaves=4,
)
TRIAL = st.builds(
    Trial,
    number=st.just(0),
    settings=st.dictionaries(st.text(max_size=8), VALUES, max_size=3),
    state=st.sampled_from(["complete", "pruned", "failed", "running"]),
    score=st.none() | SCORES,
    values=st.dictionaries(st.text(max_size=5), SCORES, max_size=2),
    evaluations=st.lists(SCORES, max_size=3).map(tuple),
    seconds=st.floats(0, 1e6),
    steps=st.integers(0, 10**6),
    reason=st.text(max_size=20),
)


def test_a_study_is_read_as_it_was_written(tmp_path):
    study = make_study(20)
    write_trials(tmp_path / TRIALS, study)
    assert read_trials(tmp_path / TRIALS) == study
    assert read_trials(tmp_path) == study
    lines = (tmp_path / TRIALS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(20))
    assert sorted(path.name for path in tmp_path.iterdir()) == [STUDY, TRIALS]


@given(st.lists(TRIAL, max_size=4))
def test_any_trials_are_read_as_they_were_written(tmp_path_factory, trials):
    numbered = tuple(Trial(**{**vars(trial), "number": i}) for i, trial in enumerate(trials))
    study = Study(numbered, "f1", False, (3, 1), 9)
    path = tmp_path_factory.mktemp("t") / TRIALS
    write_trials(path, study)
    assert read_trials(path) == study


def test_what_is_not_finite_is_null(tmp_path):
    trial = Trial(0, {"a": math.inf}, "failed", None, {"f1": math.nan}, (0.5, math.nan))
    write_trials(tmp_path / TRIALS, Study((trial,), "f1", True, (3, 1), 1))
    line = (tmp_path / TRIALS).read_text()
    assert "NaN" not in line and "Infinity" not in line
    found = read_trials(tmp_path).trials[0]
    assert found.settings == {"a": None}
    assert found.evaluations[0] == 0.5 and math.isnan(found.evaluations[1]) and math.isnan(found.values["f1"])


def test_no_trials(tmp_path):
    study = Study((), "mcc", True, (8, 2), 5)
    write_trials(tmp_path / TRIALS, study)
    assert (tmp_path / TRIALS).read_text() == ""
    assert read_trials(tmp_path) == study


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"out: '.*none/trials\.jsonl' cannot be written"):
        write_trials(tmp_path / "none" / TRIALS, make_study(1))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"trials\.jsonl:2: is not JSON"),
        ("[1]", r"trials\.jsonl:2: must be an object of JSON, got list"),
        ('{"number": "1"}', r"trials\.jsonl:2: number must be int, got '1'"),
        ('{"number": true}', r"trials\.jsonl:2: number must be int, got True"),
        ('{"number": 1}', r"trials\.jsonl:2: settings must be dict, got nothing"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    path = tmp_path / TRIALS
    write_trials(path, make_study(1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        read_trials(path)


def test_damage_of_values(tmp_path):
    path = tmp_path / TRIALS
    write_trials(path, make_study(2, states="cc"))
    first, second = path.read_text().splitlines()
    for given_, changed, message in [
        ('"complete"', '"done"', r":2: state must be one of 'complete', .*, got 'done'"),
        ('"number": 1', '"number": 0', r"has more than one line for trial 0"),
        ('"mcc": ', '"mcc": "x", "f1": ', r":2: a score must be a number or null, got 'x'"),
    ]:
        path.write_text(f"{first}\n{second.replace(given_, changed)}\n")
        with pytest.raises(DataError, match=message):
            read_trials(path)
    (tmp_path / STUDY).write_text("{}")
    path.write_text(first)
    with pytest.raises(
        DataError, match=r"study\.json: is not what bertune tune wrote: KeyError\('train_rows'\)"
    ):
        read_trials(path)
    (tmp_path / STUDY).unlink()
    with pytest.raises(DataError, match=r"study\.json: cannot be read"):
        read_trials(path)
