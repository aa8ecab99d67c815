"""Named sets on their real files: counts, traps, files for leaderboards. BERTUNE_DATA names the folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bertune.catalog.leaderboard import write_submission
from bertune.catalog.sets import SUITES, find_set, why_not_runnable
from bertune.catalog.use import named_rows
from bertune.commands.train import resolve_run
from bertune.config.reading import reading_config
from bertune.config.schema import DataConfig
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows
from bertune.errors import DataError
from bertune.tasks.base.reading import read_examples, read_splits
from bertune.types import Prediction

pytestmark = pytest.mark.real
DATA = Path(os.environ.get("BERTUNE_DATA", "/nowhere"))
SPLITS = {
    "glue:cola": (8551, 1043, 0, 16),
    "glue:sst2": (67349, 872, 0, 0),
    "glue:mrpc": (3667, 408, 0, 0),
    "glue:stsb": (5749, 1500, 0, 6),
    "glue:rte": (2490, 277, 0, 0),
    "glue:wnli": (635, 71, 0, 0),
    "clue:tnews": (53360, 10000, 0, 1099),
    "clue:afqmc": (34334, 4316, 0, 0),
    "clue:ocnli": (9985, 2950, 0, 0),
    "clue:chnsenticorp": (9600, 1200, 0, 338),
    "ner:resume": (3821, 463, 477, 1),
    "ner:weibo": (1350, 270, 270, 42),
    "ner:wnut17": (3394, 1009, 1287, 0),
    "sts:stsb": (5749, 1500, 0, 6),
    "sts:stsb-zh": (5231, 1458, 1361, 13),
    "sts:atec": (35411, 3935, 0, 0),
}
"""Rows of train, dev and scored test, and dev rows whose text is a training row. The copy of MRPC lacks one
row of the official 3,668; OCNLI is its file of 10,000 rows, 15 of them without a majority."""


@pytest.fixture(autouse=True)
def _has_data():
    if not DATA.is_dir():
        pytest.skip("BERTUNE_DATA is no folder")


@pytest.mark.parametrize(("name", "expected"), SPLITS.items(), ids=list(SPLITS))
def test_the_rows_of_a_set(name, expected):
    if why := why_not_runnable(find_set(name), DATA):
        pytest.skip(why)
    notes: list[str] = []
    run, task = resolve_run(name, [f"data.root={DATA}"], notes.append)
    splits = read_splits(task, run.data, 42, notes.append)
    shared = [int(note.split()[0]) for note in notes if "dev rows have a text that is also" in note]
    assert (len(splits.train), len(splits.dev), len(splits.test), sum(shared)) == expected
    assert not any("unusable" in note for note in notes)


def test_every_set_that_is_there_is_counted_here():
    runnable = {s.full_name for suite in SUITES.values() for s in suite if not why_not_runnable(s, DATA)}
    assert runnable - set(SPLITS) <= {"ner:msra", "sts:afqmc", "clue:lcqmc", "sts:lcqmc", "glue:qnli"}


def test_qnli_without_training_rows_cannot_run_but_can_be_scored():
    if not (DATA / "glue" / "QNLI" / "dev.tsv").is_file() or (DATA / "glue" / "QNLI" / "train.tsv").is_file():
        pytest.skip("BERTUNE_DATA has another QNLI")
    assert why_not_runnable(find_set("glue:qnli"), DATA) == f"QNLI/train.tsv is not in {DATA}"
    file, overrides = named_rows("glue:qnli", [f"data.root={DATA}"], "dev", lambda _: None, scored=True)
    _, task = resolve_run("glue:qnli", [], lambda _: None)
    rows = read_examples([file], task, reading_config(DataConfig(), file, overrides), lambda _: None)
    assert len(rows) == 5463


@pytest.mark.parametrize(("name", "count"), [("glue:mrpc", 1725), ("glue:stsb", 1379), ("sts:stsb", 1379)])
def test_labelled_test_rows_that_glue_hides(name, count):
    """The authors' file of STS-B has two more columns on 284 lines."""
    run, task = resolve_run(name, [f"data.root={DATA}"], lambda _: None)
    file, overrides = named_rows(f"{name}:test", [f"data.root={DATA}"], "dev", lambda _: None, scored=True)
    rows = read_examples(
        [file], task, reading_config(run.data, file, overrides), lambda _: None, to_score=True
    )
    assert len(rows) == count
    assert all(len(row.texts) == 2 and row.target is not None for row in rows)


SUBMISSIONS = ["cola", "sst2", "mrpc", "stsb", "rte", "wnli"]


def rows_of_test(name: str) -> tuple[str, list]:
    """The test file of a set, and its rows, read as `predict` reads them."""
    _, task = resolve_run(name, [f"data.root={DATA}"], lambda _: None)
    file, overrides = named_rows(name, [f"data.root={DATA}"], "test", lambda _: None)
    data = reading_config(DataConfig(), file, overrides)
    bad_rows = BadRows()
    options = ReadOptions(file, data, task.columns, bad_rows, lambda _: None, require_target=False)
    rows = list(open_rows(options))
    bad_rows.finish()
    return file, rows


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_file_for_glue_has_the_rows_and_numbers_of_its_test_file(name, tmp_path):
    named_set = find_set(f"glue:{name}")
    file, rows = rows_of_test(named_set.full_name)
    value = named_set.labels[1] if named_set.labels else 2.5
    path = write_submission(named_set, [(row, Prediction(value)) for row in rows], tmp_path, file)
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0] == ["index", "prediction"]
    given = [line.split("\t")[0] for line in Path(file).read_text(encoding="utf-8-sig").splitlines()[1:]]
    assert [number for number, _ in lines[1:]] == given  # the test files of GLUE count their rows


def test_a_file_for_clue_has_the_rows_of_its_test_file(tmp_path):
    named_set = find_set("clue:afqmc")
    file, rows = rows_of_test("clue:afqmc")
    path = write_submission(named_set, [(row, Prediction("1")) for row in rows], tmp_path, file)
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert written == [{"id": n, "label": "1"} for n in range(3861)]


def test_a_test_file_that_was_cut_is_refused(tmp_path):
    file, rows = rows_of_test("glue:rte")
    with pytest.raises(DataError, match=r"gives 2,999 predictions, .* has 3,000 rows"):
        write_submission(
            find_set("glue:rte"), [(row, Prediction("entailment")) for row in rows[:-1]], tmp_path, file
        )
