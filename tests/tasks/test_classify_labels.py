"""The forms in which files and settings write labels: each is read as it is meant and said, or refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bertune.cli.output import score_lines
from bertune.commands.evaluate import Evaluation, evaluate
from bertune.commands.inspect import inspect
from bertune.commands.predict import predict
from bertune.commands.train import prepare, train
from bertune.config.load import dump_config
from bertune.config.schema import DataConfig
from bertune.errors import ConfigError, DataError
from bertune.inference.writers import write_csv
from bertune.tasks.base import labels as label_forms
from bertune.tasks.base.label_scores import score_single_label
from bertune.tasks.base.reading import check_examples, read_examples, read_splits
from bertune.tasks.classify import Classify, ClassifyOptions
from bertune.types import Example, Location, Prediction, Row, Scores

Write = Callable[..., str]
ROWS = 12


class Read:
    """The rows of a run as `bertune train` reads them, the lines that it prints, and the task."""

    def __init__(self, file: str, *overrides: str, task: str = "classify", **settings: Any) -> None:
        run, self.task = prepare(
            {"task": task, **{name: dict(v) for name, v in settings.items()}},
            [f"data.train={file}", *overrides],
        )
        self.lines: list[str] = []
        splits = read_splits(self.task, run.data, run.seed, self.lines.append)
        self.run = run
        rows = sorted([*splits.train, *splits.dev], key=lambda e: e.location.line)
        self.targets = [e.target for e in rows]

    def said(self, *words: str) -> bool:
        """Whether one line has all the words."""
        return any(all(word in line for word in words) for line in self.lines)


def jsonl(write: Write, labels: Sequence[Any], field: str = "labels") -> str:
    """A file whose rows have these labels in turn, as JSON."""
    return write("rows.jsonl", [{"text": f"text {n}", field: labels[n % len(labels)]} for n in range(ROWS)])


def table(write: Write, labels: Sequence[Any], name: str = "rows.csv") -> str:
    """A csv file whose rows have these labels in turn."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["text", "label"])
    writer.writerows([f"text {n}", labels[n % len(labels)]] for n in range(ROWS))
    return write(name, file.getvalue())


def parquet(tmp_path: Path, **columns: Sequence[Any]) -> str:
    path = str(tmp_path / "rows.parquet")
    repeated = {name: [values[n % len(values)] for n in range(ROWS)] for name, values in columns.items()}
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(ROWS)], **repeated}), path)
    return path


# ---------------------------------------------------------------- a 0 or 1 for each label

VECTORS: dict[str, list[list[Any]]] = {
    "integers": [[0, 1, 1], [1, 0, 1]],
    "booleans": [[False, True, True], [True, False, True]],
    "floats": [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]],
    "texts": [["0", "1", "1"], ["1", "0", "1"]],
    "words": [["no", "yes", "yes"], ["yes", "no", "yes"]],
}


@pytest.mark.parametrize("vectors", VECTORS.values(), ids=VECTORS)
def test_lists_of_0_and_1_are_a_value_for_each_label(write, vectors):
    read = Read(jsonl(write, vectors))
    assert read.task.is_multi_label
    assert read.task.labels == ("0", "1", "2")
    assert read.targets[:2] == [("1", "2"), ("0", "2")]
    assert read.said("rows.jsonl:1: the labels are a 0 or 1 for each of 3 labels", "data.labels")


@pytest.mark.parametrize("vectors", VECTORS.values(), ids=VECTORS)
def test_data_labels_names_the_values(write, vectors):
    read = Read(jsonl(write, vectors), "data.labels=[toxic, obscene, insult]")
    assert read.task.labels == ("toxic", "obscene", "insult")
    assert read.targets[:2] == [("obscene", "insult"), ("toxic", "insult")]


@pytest.mark.parametrize(
    ("cells", "overrides"),
    [
        (["0,1,1", "1,0,1"], ["data.label_delimiter=comma"]),
        (["0|1|1", "1|0|1"], ["data.label_delimiter=pipe"]),
        (["[0, 1, 1]", "[1, 0, 1]"], []),
        (["[0 1 1]", "[1 0 1]"], []),
        (["[0. 1. 1.]", "[1. 0. 1.]"], []),
        (["[False, True, True]", "[True, False, True]"], []),
        (["[0, 1, 1]", "[1, 0, 1]"], ["options.problem_type=multi_label"]),
    ],
)
def test_cells_of_csv_with_0_and_1(write, cells, overrides):
    read = Read(table(write, cells), *overrides)
    assert read.task.labels == ("0", "1", "2")
    assert read.targets[:2] == [("1", "2"), ("0", "2")]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float32(), pa.bool_(), pa.int8()])
def test_lists_of_parquet(tmp_path, kind):
    vectors = pa.array([[0, 1, 1], [1, 0, 1]], pa.list_(pa.int8())).cast(pa.list_(kind)).to_pylist()
    read = Read(parquet(tmp_path, labels=vectors))
    assert read.targets[:2] == [("1", "2"), ("0", "2")]


def test_an_array_of_numpy_is_a_list():
    task = prepare({"task": "classify"})[1]
    row = Row({"text": "a", "label": np.array([0.0, 1.0, 1.0])}, Location("rows", 1))
    assert task.read(row).target == ("1", "2")


def test_a_label_that_no_row_has_keeps_its_place(write):
    read = Read(jsonl(write, [[1, 0, 0, 1], [0, 0, 0, 1]]))
    assert read.task.labels == ("0", "1", "2", "3")
    assert read.said("labels without a training row: '1', '2'")


def test_columns_of_0_and_1(tmp_path):
    file = parquet(tmp_path, toxic=[True, False], obscene=[1, 1, 0])
    read = Read(file, "data.columns={text: text, label: [toxic, obscene]}")
    assert read.task.labels == ("toxic", "obscene")
    assert read.targets[:4] == [("toxic", "obscene"), ("obscene",), ("toxic",), ("obscene",)]


def test_data_labels_orders_the_columns(tmp_path):
    file = parquet(tmp_path, toxic=[1, 0], obscene=[1, 1, 0])
    columns = "data.columns={text: text, label: [toxic, obscene]}"
    assert Read(file, columns, "data.labels=[obscene, toxic]").task.labels == ("obscene", "toxic")
    with pytest.raises(
        ConfigError, match=r"data\.labels must name the columns .*'toxic', 'obscene', got 'a'"
    ):
        Read(file, columns, "data.labels=[a, b]")


def test_a_mapping_of_labels(write):
    read = Read(jsonl(write, [{"POS": 1.0, "NEG": 0.0}, {"POS": 0.0, "NEG": 1.0}], "label"))
    assert read.task.labels == ("POS", "NEG")
    assert read.targets[:2] == [("POS",), ("NEG",)]


@pytest.mark.parametrize("bad", ["2", "", "late", "-1", "0.5"])
def test_a_column_with_another_value_is_refused_with_its_line(write, bad):
    content = "text,a,b\n" + "".join(f"t {n},1,{n % 2}\n" for n in range(5)) + f"x,0,{bad}\n"
    with pytest.raises(DataError, match=r"rows\.csv:7: 'b' must be 0 or 1 \(or false, true, no, yes\)"):
        Read(write("rows.csv", content), "data.columns={text: text, label: [a, b]}")


@pytest.mark.parametrize("bad", [[0, 1], [0, 1, 1, 0], [], [0, 1, 2], [0, None, 1], ["late"], "late"])
def test_a_list_of_another_length_or_value_is_refused_with_its_line(write, bad):
    rows = [{"text": f"text {n}", "labels": [n % 2, 1, 0]} for n in range(8)]
    rows[6]["labels"] = bad
    with pytest.raises(DataError, match=r"rows\.jsonl:7: 'label' must be a list of 3 values 0 or 1"):
        Read(write("rows.jsonl", rows))
    for split in ("dev", "test"):
        with pytest.raises(DataError, match=r"other\.jsonl:7: 'label' must be a list of 3 values 0 or 1"):
            Read(jsonl(write, [[0, 1, 1], [1, 0, 1]]), f"data.{split}={write('other.jsonl', rows)}")


def test_names_for_another_number_of_labels_are_refused(write):
    with pytest.raises(
        ConfigError, match=r"data\.labels names 2 labels, .*rows\.jsonl:1 .* list of 3 values"
    ):
        Read(jsonl(write, [[0, 1, 1], [1, 0, 1]]), "data.labels=[a, b]")


@pytest.mark.parametrize(
    ("labels", "targets"),
    [
        ([[0, 1], [1], [0]], [("0", "1"), ("1",), ("0",)]),
        ([[0], [1]], [("0",), ("1",)]),
        ([[0, 1], [0, 1, 2]], [("0", "1"), ("0", "1", "2")]),
        ([[3, 5, 1], [1]], [("3", "5", "1"), ("1",)]),
        ([[0, 1], ["late"]], [("0", "1"), ("late",)]),
        ([["late", "damaged"], []], [("late", "damaged"), ()]),
        ([["true", "false"], ["true"]], [("true", "false"), ("true",)]),
    ],
)
def test_lists_of_labels_stay_lists_of_labels(write, labels, targets):
    read = Read(jsonl(write, labels))
    assert read.targets[: len(targets)] == targets
    assert not read.said("0 or 1")


@pytest.mark.parametrize(
    "labels", [[[0, 1], [1, 0], [1, 1]], [[0, 1], [1, 0]], [[0, 0], [1, 1]], [[1, 1], [0, 1]]]
)
def test_two_labels_are_told_by_the_whole_file(write, labels):
    read = Read(jsonl(write, labels))
    assert read.said("a 0 or 1 for each of 2 labels")
    expected = [tuple(str(i) for i, value in enumerate(row) if value) for row in labels]
    assert read.targets[: len(labels)] == expected


def test_a_list_that_always_names_both_labels_is_read_as_before(write):
    assert Read(jsonl(write, [[0, 1]])).targets[0] == ("0", "1")


def test_names_and_a_0_or_1_for_each_label_do_not_mix(write):
    rows = [{"text": f"t {n}", "label": ["a", "b"]} for n in range(6)]
    with pytest.raises(DataError, match=r"rows\.jsonl:7: 'label' has a 0 or 1 for each label .*:1 names"):
        Read(write("rows.jsonl", [*rows, {"text": "x", "label": [0, 1, 1]}]))
    with pytest.raises(DataError, match=r"rows\.jsonl:7: 'label' has a value for each of 'a', 'c'"):
        Read(write("rows.jsonl", [*rows, {"text": "x", "label": {"a": 1, "c": 0}}]))


def test_one_hot_rows_can_have_one_label(write):
    file = jsonl(write, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert Read(file).said("every row has exactly one label", "options.problem_type=single_label")
    read = Read(file, "options.problem_type=single_label", "data.labels=[a, b, c]")
    assert not read.task.is_multi_label
    assert read.targets[:3] == ["b", "a", "c"]
    with pytest.raises(DataError, match=r"rows\.jsonl:1: 'label' has 2 labels that apply .*single_label"):
        Read(jsonl(write, [[0, 1, 1]]), "options.problem_type=single_label")


@pytest.mark.parametrize(
    ("header", "row", "setting"),
    [
        (
            "id,comment_text,toxic,obscene",
            "a7,some words,1,0",
            "{text: comment_text, label: [toxic, obscene]}",
        ),
        ("text,joy,sad-ness,anger", "words,0,1,0", "{text: text, label: [joy, 'sad-ness', anger]}"),
        ("Body,x,y", "words,false,true", "{text: Body, label: [x, y]}"),
    ],
)
def test_unnamed_columns_of_0_and_1_are_advised(write, header, row, setting):
    file = write("rows.csv", f"{header}\n{row}\n{row.replace('words', 'others')}\n")
    with pytest.raises(DataError) as caught:
        Read(file)
    assert f'set "data.columns={setting}"' in str(caught.value)
    advised = str(caught.value).partition('set "')[2].rstrip('"')
    assert len(Read(file, advised).task.labels) == setting.count(",")


def test_a_missing_column_alone_gets_no_such_advice(write):
    with pytest.raises(DataError) as caught:
        Read(write("rows.csv", "text,mood\na,good\nb,bad\n"))
    assert "0 and 1" not in str(caught.value)


def test_a_saved_model_reads_the_same_form(write, tiny, tmp_path):
    file = jsonl(write, [[0, 1, 1], [1, 0, 1]])
    out = str(tmp_path / "out")
    settings = {"task": "classify", "model": str(tiny), "out": out, "train": {"max_steps": 1}}
    train({**settings, "data": {"train": file, "labels": ["a", "b", "c"]}}, quiet=True)
    per_label = evaluate(out, file).scores.per_label
    assert {label: figures["support"] for label, figures in per_label.items()} == {"a": 6, "b": 6, "c": 12}
    with pytest.raises(DataError, match=r"other\.jsonl:1: 'label' must be a list of 3 values"):
        evaluate(out, write("other.jsonl", [{"text": "a", "labels": [0, 1]}]))
    assert len(list(predict(out, write("none.jsonl", [{"text": "a", "labels": [7]}])).results)) == 1
    # Predictions as lists of names can be scored too.
    named = write("named.jsonl", [{"text": "a", "labels": ["b", "c"]}, {"text": "b", "labels": ["a"]}])
    assert evaluate(out, named).scores.per_label["a"]["support"] == 1


def test_a_state_from_before_has_names(write):
    task = Read(jsonl(write, [["a"], ["b", "a"]])).task
    state = task.state()
    del state["is_multi_hot"]
    task.load_state(state)
    assert not task.is_multi_hot


def test_inspect_reads_columns_of_labels(write, tiny):
    file = write("rows.csv", "text,a,b\n" + "".join(f"t {n},1,{n % 2}\n" for n in range(6)))
    report = inspect(file, ["data.columns={text: text, label: [a, b]}"], model=str(tiny))
    assert (report["task"], report["targets"]) == ("classify", {"a": 6, "b": 3})


# ---------------------------------------------------------------- lists written as text


@pytest.mark.parametrize(
    "cells",
    [
        ["['late']", "['late', 'damaged']"],
        ['["late"]', '["late", "damaged"]'],
        ["['late']", "['late' 'damaged']"],
        ["('late',)", "('late', 'damaged')"],
        ["array(['late'], dtype=object)", "array(['late', 'damaged'], dtype='<U7')"],
        ["[]", "['late', 'damaged']"],
    ],
)
def test_lists_as_text_are_lists(write, cells):
    read = Read(table(write, cells))
    first = () if cells[0] == "[]" else ("late",)
    assert read.targets[:2] == [first, ("late", "damaged")]
    assert read.said("12 rows have their labels as a list written as text", "rows.csv:2")


def test_numbers_in_a_list_as_text(write):
    assert Read(table(write, ["[3, 1]", "[2]"])).targets[:2] == [("3", "1"), ("2",)]


def test_a_delimiter_does_not_cut_a_list(write):
    read = Read(table(write, ["['late', 'damaged']", "late,dear"]), "data.label_delimiter=comma")
    assert read.targets[:2] == [("late", "damaged"), ("late", "dear")]


@pytest.mark.parametrize("label", ["[late] again", "[late]", "['late'", "(late)", "[late, damaged]", "{a}"])
def test_a_text_that_begins_with_a_bracket_is_a_label(write, label):
    read = Read(table(write, [label, "other"]))
    assert read.targets[:2] == [label, "other"]
    assert not read.task.is_multi_label


def test_a_list_as_text_beside_single_labels(write):
    file = table(write, ["late", "['late', 'damaged']"])
    with pytest.raises(
        DataError, match=r"rows\.csv:3: the label is a list written as text .* at .*rows\.csv:2;"
    ):
        Read(file)
    assert Read(file, "options.problem_type=multi_label").targets[:2] == [("late",), ("late", "damaged")]
    assert Read(file, "options.problem_type=single_label").targets[1] == "['late', 'damaged']"


def test_predictions_in_csv_are_read_back(write):
    predictions = [("late", "damaged"), (), ("late",), ("a|b", "late")] * 3
    file = io.StringIO()
    rows = [
        (Row({}, Location("f", n), {"text": f"text {n}"}), Prediction(labels))
        for n, labels in enumerate(predictions)
    ]
    write_csv(file, ["text"], rows)
    read = Read(write("rows.csv", file.getvalue()), "data.columns={text: text, label: prediction}")
    assert read.targets == predictions


def test_joined_labels_are_noticed(write):
    advice = Read(table(write, ["late|damaged", "late", "damaged"])).lines
    assert any("data.label_delimiter=pipe" in line for line in advice)
    assert Read(table(write, ["0,1,1", "1,0,1"])).said("'0,1,1'", "data.label_delimiter=comma")
    assert not Read(table(write, ["late|gone", "late", "other"])).said("label_delimiter")
    assert not Read(table(write, ["very late", "very", "late"])).said("label_delimiter")


@pytest.mark.parametrize(
    ("words", "tags"),
    [
        ("['EU', 'rejects']", "['B-ORG', 'O']"),
        ('["EU", "rejects"]', '["B-ORG", "O"]'),
        ("['EU' 'rejects']", "['B-ORG' 'O']"),
        ("EU rejects", '[{"start": 0, "end": 2, "label": "ORG"}]'),
        ("EU rejects", "[(0, 2, 'ORG')]"),
    ],
)
def test_words_and_tags_of_csv_are_lists(write, words, tags):
    file = io.StringIO()
    csv.writer(file).writerows([["tokens", "ner_tags"], *([words, tags] for _ in range(4)), ["it is", "[]"]])
    read = Read(write("rows.csv", file.getvalue().replace("it is,[]", "it is,O O")), task="tag")
    assert [[tuple(span) for span in target] for target in read.targets] == [[(0, 2, "ORG")]] * 4 + [[]]
    assert read.said("4 rows have lists written as text")


# ---------------------------------------------------------------- labels in settings

CODES = ["00", "01", "02"]


@pytest.mark.parametrize(
    ("labels", "setting", "dropped"),
    [
        (CODES, "[02]", "02"),
        (CODES, "[2]", "02"),
        (["True", "False", "x"], "[True]", "True"),
        (["true", "false", "x"], "[True]", "true"),
        (["null", "a", "b"], "[null]", "null"),
        (["None", "a", "b"], "[null]", "None"),
        (["1e3", "a", "b"], "[1e3]", "1e3"),
        (["1000", "a", "b"], "[1e3]", "1000"),
        (["1.0", "2.0", "3.0"], "[1]", "1.0"),
        (["1", "2", "3"], "[1.0]", "1"),
        (["2024-05-01", "a", "b"], "[2024-05-01]", "2024-05-01"),
        (["-", "a", "b"], "['-']", "-"),
    ],
)
def test_rows_are_dropped_by_text_or_value(write, labels, setting, dropped):
    read = Read(table(write, labels), f"data.drop_labels={setting}")
    assert set(read.targets) == set(labels) - {dropped}
    assert read.said("4 rows left out, since data.drop_labels names their label")


@pytest.mark.parametrize("given", [2, 2.0, "02", "2"])
def test_labels_of_python_are_dropped_too(write, given):
    assert set(Read(table(write, CODES), data={"drop_labels": [given]}).targets) == {"00", "01"}


def test_labels_of_json_are_dropped_by_value(write):
    assert set(Read(jsonl(write, [1, 2, 3], "label"), "data.drop_labels=[2.0]").targets) == {"1", "3"}
    assert set(Read(jsonl(write, [True, False, True], "label"), data={"drop_labels": ["x"]}).targets) == {
        "true", "false"
    }  # fmt: skip


def test_a_label_as_written_wins_over_one_of_its_value(write):
    read = Read(table(write, ["2", "02", "x"]), "data.drop_labels=[2]")
    assert set(read.targets) == {"02", "x"}


def test_an_ambiguous_label_is_refused(write):
    file = table(write, ["2.0", "02", "x"])
    for setting in ("data.drop_labels=[2]", "data.labels=[2, x]", "options.class_weights={2: 3}"):
        with pytest.raises(
            ConfigError, match=r"'2' may mean '(2\.0|02)' or '(2\.0|02)'; write the label in quotes"
        ):
            Read(file, setting)


def test_a_label_to_drop_that_no_row_has_is_said(write):
    read = Read(table(write, ["late", "damaged", "x"]), "data.drop_labels=[damagd, x]")
    assert set(read.targets) == {"late", "damaged"}
    assert read.said("data.drop_labels has no effect for 'damagd' (did you mean 'damaged'?)", "no row has it")
    assert not Read(table(write, ["late", "damaged", "x"]), "data.drop_labels=[x]").said("no effect")


def test_a_label_to_drop_that_only_another_split_has_is_not_idle(write):
    dev = table(write, ["late", "x"], "dev.csv")
    read = Read(table(write, ["late", "damaged"]), f"data.dev={dev}", "data.drop_labels=[x]")
    assert not read.said("no effect")


@pytest.mark.parametrize(
    ("labels", "setting", "order"),
    [
        (CODES, "[02,01,00]", ("02", "01", "00")),
        (CODES, "[2,1,0]", ("02", "01", "00")),
        (["True", "False"], "[True,False]", ("True", "False")),
        (["true", "false"], "[True,False]", ("true", "false")),
        (["1.0", "2.0"], "[2,1]", ("2.0", "1.0")),
        (["null", "1e3"], "[null,1e3]", ("null", "1e3")),
    ],
)
def test_data_labels_by_text_or_value(write, labels, setting, order):
    read = Read(table(write, labels), f"data.labels={setting}")
    assert read.task.labels == order
    assert read.targets[: len(labels)] == labels


@pytest.mark.parametrize(
    ("labels", "positive", "weights", "expected"),
    [
        (["0", "1"], "1", "{0: 1, 1: 5}", [1.0, 5.0]),
        (["00", "01"], "1", "{0: 1, 1: 5}", [1.0, 5.0]),
        (["False", "True"], "true", "{false: 1, True: 5}", [1.0, 5.0]),
        (["1.0", "2.0"], "2", "{2: 5}", [1.0, 5.0]),
        (["no", "null"], "null ", "{'null': 5}", [1.0, 5.0]),
    ],
)
def test_positive_label_and_weights(write, labels, positive, weights, expected):
    settings = [f"options.positive_label={positive}"] if "null" not in positive else []
    read = Read(table(write, labels), *settings, f"options.class_weights={weights}")
    assert read.task.class_weights == expected
    assert read.task.positive_id == 1


@pytest.mark.parametrize("weights", [{0: 1, 1: 5}, {0.0: 1, 1.0: 5}, {False: 1, True: 5}, {"0": 1, "1": 5}])
def test_weights_of_python(write, weights):
    labels = ["False", "True"] if False in weights and isinstance(next(iter(weights)), bool) else ["0", "1"]
    read = Read(table(write, labels), options={"class_weights": weights, "positive_label": max(weights)})
    assert read.task.class_weights == [1.0, 5.0]
    assert read.task.positive_id == 1


def test_a_run_file_keeps_labels_as_written(write):
    file = table(write, CODES)
    run_file = write(
        "run.yaml",
        f"task: classify\ndata:\n  train: {file}\n  drop_labels: [02]\n  labels:\n    - 01\n    - 00\n"
        "options:\n  positive_label: 00\n  class_weights: {00: 2, 01: 3}\n",
    )
    run, task = prepare(run_file)
    assert (run.data.labels, run.data.drop_labels) == (["01", "00"], ["02"])
    assert (task.options.positive_label, task.options.class_weights) == ("00", {"00": 2.0, "01": 3.0})
    again, _ = prepare(write("again.yaml", dump_config(run)))
    assert again == run


def test_unknown_labels_of_settings_are_named_with_the_nearest(write):
    file = table(write, ["positive", "negative"])
    with pytest.raises(ConfigError) as caught:
        Read(file, "options.positive_label=positiv", "options.class_weights={negativ: 2, x: 3}")
    message = str(caught.value)
    assert "options.positive_label: 'positiv' is not a label; did you mean 'positive'?" in message
    assert "options.class_weights: no such labels: 'negativ' (did you mean 'negative'?), 'x'" in message


def test_one_label_weighted_twice_is_refused(write):
    with pytest.raises(ConfigError, match=r"options\.class_weights: .*'1' and '01' are both the label '01'|"):
        Read(table(write, ["00", "01"]), "options.class_weights={1: 2, 1.0: 3}")


def test_columns_named_by_numbers(write):
    file = write("rows.csv", "0,1\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(ROWS)))
    assert Read(file, "data.columns={text: 0, label: 1}").targets[:2] == ["a", "b"]
    assert Read(file, data={"columns": {"text": 0, "label": 1}}).targets[:2] == ["a", "b"]
    assert prepare("classify", ["data.columns=[0, 01, _]"])[0].data.columns == ["0", "01", "_"]


# ---------------------------------------------------------------- rare labels, and many


def test_a_label_with_one_row_is_trained_on(write):
    rows = "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(200)) + "".join(
        f"r {n},r{n}\n" for n in range(40)
    )
    file = write("rows.csv", "text,label\n" + rows)
    run, task = prepare({"task": "classify"}, [f"data.train={file}"])
    lines: list[str] = []
    splits = read_splits(task, run.data, run.seed, lines.append)
    assert {e.target for e in splits.train} == set(task.labels)
    assert len(splits.dev) == 24
    assert any("the dev set has no row of 40 of 42 labels" in line for line in lines)
    assert not any("without a training row" in line for line in lines)


def test_a_limit_below_the_number_of_labels_is_said(write):
    file = table(write, list("abcdef"))
    dev = table(write, list("ab"), "dev.csv")
    read = Read(file, f"data.dev={dev}", "data.limit=4")
    assert read.said("labels without a training row", "data.limit=4")
    read = Read(write("rare.csv", "text,label\n" + "x,c\n" + "".join(f"t {n},a\nu {n},b\n" for n in range(50))), f"data.dev={dev}", "data.limit=10")  # fmt: skip
    assert not read.said("without a training row")


def test_messages_are_made_for_the_rows_that_are_shown(write, monkeypatch):
    read = Read(table(write, ["late", "damaged"]))
    asked: list[str] = []
    monkeypatch.setattr("bertune.data.labels.did_you_mean", lambda word, _: asked.append(word) or "")
    bad = [Example((f"t {n}",), f"x{n}", Location("dev.csv", n)) for n in range(1000)]
    with pytest.raises(DataError, match=r"dev\.csv:0: label 'x0' .* \(and 999 more bad rows"):
        check_examples(bad, read.task, read.run.data, lambda _: None)
    assert len(asked) <= 5


def test_a_task_of_many_labels_keeps_no_table_of_pairs(write):
    labels = [f"label {n}" for n in range(3000)]
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate(labels * 2)]
    read = Read(write("rows.jsonl", rows))
    examples = [Example(("a",), label) for label in labels]
    scores = read.task.score([Prediction(labels[n // 2]) for n in range(3000)], examples)
    assert scores.values["accuracy"] == pytest.approx(1 / 3000)
    assert len(scores.per_label) == 3000
    assert sum(len(row) for row in scores.confusion.values()) == 1000
    assert len(json.dumps(scores.to_json())) < 1_000_000


def test_many_labels_a_row_are_scored_as_few(write):
    """The metrics of many labels equal those of the labels that occur."""
    names = [f"l{n:03}" for n in range(300)]
    rng = np.random.default_rng(0)
    drawn = [tuple(sorted({names[i] for i in rng.integers(0, 5, 2)})) for _ in range(40)]
    predicted = [tuple(sorted({names[i] for i in rng.integers(0, 5, 2)})) for _ in range(40)]

    def scores_with(labels: list[str]) -> dict[str, float]:
        task = prepare({"task": "classify", "options": {"problem_type": "multi_label"}})[1]
        task.labels = labels
        examples = [Example(("a",), target) for target in drawn]
        found = task.score([Prediction(p) for p in predicted], examples)
        return {**found.values, "low": found.intervals["f1_micro"][0]}

    few, many = scores_with(names[:5]), scores_with(names)
    for name in ("f1_micro", "precision_micro", "recall_micro", "accuracy", "f1_weighted", "low"):
        assert many[name] == pytest.approx(few[name])


def test_read_examples_reports_lists_as_text(write):
    read = Read(table(write, ["['a']", "['b', 'a']"]))
    lines: list[str] = []
    read_examples([table(write, ["['a']"], "dev.csv")], read.task, read.run.data, lines.append)
    assert any("12 rows have their labels as a list written as text" in line for line in lines)


def test_the_form_of_two_labels_is_looked_up_in_files_only(write):
    reader = label_forms.LabelReader(prepare({"task": "classify"})[1])
    example = reader.read(Row({"text": "a", "label": [0, 1]}, Location("-", 1)))
    assert example.target == ("0", "1")
    assert isinstance(reader.task, Classify)


@pytest.mark.parametrize("is_multi_label", [True, False])
def test_a_task_of_your_own_that_scores_gets_whole_predictions(is_multi_label):
    class Own(Classify):
        def score(self, predictions, examples, *, intervals=True):
            return super().score(predictions, examples, intervals=intervals)

    kept = []
    for kind in (Classify, Own):
        task = kind(
            ClassifyOptions(problem_type="multi_label" if is_multi_label else "single_label"), DataConfig()
        )
        task.labels, task.thresholds = ("a", "b"), [0.5, 0.5]
        (prediction,) = task.decode_to_score(torch.tensor([[2.0, 1.0]]), None)
        assert prediction.value == task.decode(torch.tensor([[2.0, 1.0]]), None)[0].value
        kept.append(prediction.probabilities)
    assert kept[0] is None
    assert set(kept[1]) == {"a", "b"}


def scores_of(num_labels: int) -> Scores:
    """Scores of a task whose every second label is taken for the one before it."""
    gold = np.arange(num_labels)
    labels = [f"label {n}" for n in range(num_labels)]
    return score_single_label(labels, gold, gold // 2 * 2, "accuracy", None, intervals=False)


def test_few_labels_are_shown_as_a_matrix_and_many_as_pairs():
    few = score_lines(Evaluation(scores_of(4), 0.5, 0))
    assert "rows by gold label (down) and predicted label (across):" in few
    assert few[-1].split() == ["label", "3", "0", "0", "1", "0"]
    many = score_lines(Evaluation(scores_of(200), 0.5, 0))
    assert "the labels that are most often confused:" in many
    assert many[-1].split() == ["label", "39", "label", "38", "1"]


@pytest.mark.parametrize(("num_labels", "pairs"), [(100, 100 * 100), (101, 50), (5000, 1000)])
def test_confusion_is_whole_for_few_labels(num_labels, pairs):
    scores = scores_of(num_labels)
    assert sum(map(len, scores.confusion.values())) == pairs
    assert scores.confusion["label 3"]["label 2"] == 1
    assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores


def test_intervals_of_many_labels_are_those_of_the_labels_that_occur():
    rng = np.random.default_rng(1)
    gold, predicted = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    for main in ("accuracy", "f1_macro", "mcc"):
        few, many = (
            score_single_label([f"l{n}" for n in range(n)], gold, predicted, main, None, intervals=True)
            for n in (4, 300)
        )
        assert many.intervals[main] == pytest.approx(few.intervals[main])
        assert many.values == pytest.approx(few.values)
