"""Files for leaderboards: header, ids, labels, and the number of rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertune.catalog.leaderboard import write_submission
from bertune.catalog.sets import SUITES, find_set
from bertune.data.converted_rows import list_entities
from bertune.errors import ConfigError, DataError
from bertune.types import Entity, Location, Prediction, Row

WITH_BOARD = [s for suite in SUITES.values() for s in suite if s.leaderboard is not None]
LABELLED = [s for s in WITH_BOARD if s.labels]
OFFICIAL = {
    "CoLA.tsv": ({"0", "1"}, 1063),
    "SST-2.tsv": ({"0", "1"}, 1821),
    "MRPC.tsv": ({"0", "1"}, 1725),
    "QQP.tsv": ({"0", "1"}, 390965),
    "STS-B.tsv": (set(), 1379),
    "MNLI-m.tsv": ({"entailment", "neutral", "contradiction"}, 9796),
    "MNLI-mm.tsv": ({"entailment", "neutral", "contradiction"}, 9847),
    "QNLI.tsv": ({"entailment", "not_entailment"}, 5463),
    "RTE.tsv": ({"entailment", "not_entailment"}, 3000),
    "WNLI.tsv": ({"0", "1"}, 146),
    "AX.tsv": ({"entailment", "neutral", "contradiction"}, 1104),
}
"""The files that GLUE takes, the values in them, and the rows of its test sets."""


def results(values: list, raws: list[dict] | None = None) -> list[tuple[Row, Prediction]]:
    raws = raws or [{} for _ in values]
    return [
        (Row({"text": raw.get("text", "a")}, Location("test", n + 1), raw), Prediction(value))
        for n, (value, raw) in enumerate(zip(values, raws, strict=True))
    ]


def test_glue_takes_these_files():
    boards = {s.leaderboard.file_name: s.leaderboard for s in WITH_BOARD if s.suite == "glue"}
    assert {name: (set(b.labels), *b.rows) for name, b in boards.items()} == OFFICIAL


@pytest.mark.parametrize("name", ["cola", "wnli", "rte", "ax"])
def test_a_file_for_glue_has_a_header_and_a_number_a_row(name, tmp_path):
    named_set = find_set(f"glue:{name}")
    (count,) = named_set.leaderboard.rows
    values = [named_set.labels[n % len(named_set.labels)] for n in range(count)]
    path = write_submission(named_set, results(values), tmp_path, "test.tsv")
    assert path == tmp_path / named_set.leaderboard.file_name
    lines = path.read_bytes().decode().split("\n")
    assert lines[0] == "index\tprediction"
    assert lines[-1] == ""
    assert [line.split("\t") for line in lines[1:-1]] == [[str(n), value] for n, value in enumerate(values)]


@pytest.mark.parametrize("named_set", LABELLED, ids=lambda s: s.full_name)
def test_every_name_of_a_label_is_written_as_the_official_one(named_set, tmp_path):
    """Also the names that the Hub gives, such as "acceptable" for 1."""
    board = named_set.leaderboard
    for layout in (*named_set.layouts, named_set.hub, named_set.modelscope):
        labels = (layout.data.get("labels") or named_set.labels) if layout else named_set.labels
        values = (list(labels) * board.rows[0])[: board.rows[0]]
        path = write_submission(named_set, results(values), tmp_path / "out", "test.json")
        lines = path.read_text(encoding="utf-8").splitlines()
        if board.form == "glue":
            written = [line.split("\t")[1] for line in lines[1:]]
        else:
            written = [json.loads(line)["label"] for line in lines]
        assert written == (list(board.labels) * board.rows[0])[: board.rows[0]]


def test_sts_b_is_cut_to_its_range_and_keeps_three_decimals(tmp_path):
    values = [-0.4, 5.2, 2.34567, *([1] * 1376)]
    path = write_submission(find_set("glue:stsb"), results(values), tmp_path, "test.tsv")
    assert path.read_text().splitlines()[:4] == ["index\tprediction", "0\t0.000", "1\t5.000", "2\t2.346"]


def test_a_file_for_clue_has_the_ids_of_the_rows_and_what_tnews_adds(tmp_path):
    raws = [{"id": 7 * n} for n in range(10000)]
    for source, name in (("x/test.json", "tnews11_predict.json"), ("x/test1.0.json", "tnews10_predict.json")):
        path = write_submission(
            find_set("clue:tnews"), results(["news_game"] * 10000, raws), tmp_path, source
        )
        assert path.name == name
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert rows[1] == {"id": 7, "label": "116", "label_desc": "news_game"}
        assert [row["id"] for row in rows] == [raw["id"] for raw in raws]


def test_rows_without_an_id_are_counted_from_0(tmp_path):
    path = write_submission(find_set("clue:afqmc"), results(["0"] * 3861), tmp_path, "test.txt")
    lines = path.read_text().splitlines()
    assert (lines[0], lines[-1]) == ('{"id": 0, "label": "0"}', '{"id": 3860, "label": "0"}')


def entities_of(text: str, spans: list[tuple[int, int, str]]) -> tuple[Entity, ...]:
    return tuple(Entity(start, end, label, text[start:end], 1.0) for start, end, label in spans)


@given(st.text("ab好 ", min_size=1, max_size=12), st.data())
def test_entities_for_cluener_are_read_back(text, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [
        (a, b, data.draw(st.sampled_from(("name", "book"))))
        for a, b in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    from bertune.catalog.leaderboard import _entities

    written = _entities(Prediction(entities_of(text, spans)))
    read = list_entities({"text": text, "label": written})["label"]
    assert [(span["start"], span["end"], span["label"]) for span in read] == spans


def test_a_file_for_cluener(tmp_path):
    prediction = Prediction(entities_of("大地好", [(0, 2, "address")]))
    row = Row({"text": "大地好"}, Location("test", 1), {"id": 3, "text": "大地好"})
    path = write_submission(find_set("ner:cluener"), [(row, prediction)] * 1345, tmp_path, "test.json")
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(first) == {"id": 3, "text": "大地好", "label": {"address": {"大地": [[0, 1]]}}}
    assert path.name == "cluener_predict.json"


def test_a_file_name_of_the_user_is_kept(tmp_path):
    path = write_submission(find_set("glue:wnli"), results(["1"] * 146), tmp_path / "mine.tsv", "test.tsv")
    assert path == tmp_path / "mine.tsv"


@pytest.mark.parametrize(
    ("name", "values", "error", "expected"),
    [
        ("glue:wnli", ["1"] * 145, DataError, "gives 145 predictions, .* glue:wnli has 146 rows"),
        ("glue:wnli", [], DataError, "gives 0 predictions"),
        ("glue:wnli", ["1"] * 147, DataError, "gives 147 predictions"),
        ("clue:cluewsc", ["true"] * 3, DataError, "has 2,574 or 290 rows"),
        ("glue:rte", ["positive"], ConfigError, "predicts 'positive', which is no label of this set"),
        ("glue:cola", [0.7], ConfigError, "predicts 0.7"),
        ("glue:cola", [("0", "1")], ConfigError, "which is no label"),
        ("glue:stsb", ["1"], ConfigError, "needs a model that predicts numbers, and got '1'"),
        ("sts:atec", ["1"], ConfigError, "has no leaderboard"),
    ],
)
def test_what_no_leaderboard_takes_is_refused_and_nothing_is_written(name, values, error, expected, tmp_path):
    with pytest.raises(error, match=expected):
        write_submission(find_set(name), results(values), tmp_path / "out.tsv", "test.tsv")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_submission(
            find_set("glue:wnli"), results(["1"] * 146), Path(tmp_path / "file" / "x.tsv"), "test.tsv"
        )


def test_a_name_without_suffix_is_a_folder_that_is_made(tmp_path):
    path = write_submission(find_set("glue:wnli"), results(["1"] * 146), tmp_path / "new" / "one", "test.tsv")
    assert path == tmp_path / "new" / "one" / "WNLI.tsv"
    assert len(path.read_text(encoding="utf-8").splitlines()) == 147
