"""match: whether labels are scores or classes, said or refused, and the same in every later use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bertune.commands.train import prepare
from bertune.config.schema import DataConfig
from bertune.errors import ConfigError, DataError
from bertune.tasks.base.datasets import complete_state
from bertune.tasks.base.reading import check_examples, read_and_fit, read_examples
from bertune.tasks.match import Match
from bertune.types import Example, Prediction

WORDS = ["entailment", "neutral", "contradiction"]
CLASSES = "are learned as classes (options.loss=softmax)"


def write(folder: Path, labels: list[Any], names: tuple[str, str, str], file: str) -> str:
    path = folder / file
    rows = [
        dict(zip(names, (f"text {n}", f"other text {n}", label), strict=True))
        for n, label in enumerate(labels)
    ]
    if file.endswith(".csv"):
        path.write_text(",".join(names) + "\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


SENTENCES = ("sentence1", "sentence2", "label")
PREMISES = ("premise", "hypothesis", "label")


def learn(
    folder: Path,
    labels: list[Any],
    *overrides: str,
    names: tuple[str, str, str] = SENTENCES,
    file: str = "t.jsonl",
) -> tuple[Match, list[Example], list[str]]:
    notes: list[str] = []
    run, task = prepare("match", overrides)
    assert isinstance(task, Match)
    examples = read_and_fit([write(folder, labels, names, file)], task, run.data, notes.append)
    return task, list(examples), notes[1:]


@pytest.mark.parametrize(
    ("labels", "names", "file", "classes"),
    [
        ([0, 1, 2, 0], PREMISES, "t.jsonl", ("0", "1", "2")),
        ([0, 1, 2, 0], SENTENCES, "t.jsonl", ("0", "1", "2")),
        ([0.0, 2.0, 1.0, 0.0], SENTENCES, "t.jsonl", ("0", "1", "2")),
        (["0", "1", "2", "0.0"], SENTENCES, "t.jsonl", ("0", "1", "2")),
        (["0.0", "1.0", "2.0", "0"], PREMISES, "t.csv", ("0", "1", "2")),
        ([1, 2, 3, 1], SENTENCES, "t.csv", ("1", "2", "3")),
        ([-1, 0, 1, 1], SENTENCES, "t.jsonl", ("-1", "0", "1")),
        ([0, 1, 1, 0], PREMISES, "t.jsonl", ("0", "1")),  # of RTE, where 0 is entailment
        ([*WORDS, "neutral"], PREMISES, "t.jsonl", ("contradiction", "entailment", "neutral")),
        (["yes", "no", "no"], SENTENCES, "t.csv", ("no", "yes")),
        (["duplicate", "not_duplicate"], SENTENCES, "t.jsonl", ("duplicate", "not_duplicate")),
    ],
)  # fmt: skip
def test_classes_are_learned_as_classes_and_it_is_said(
    labels: list[Any], names: tuple[str, str, str], file: str, classes: tuple[str, ...], tmp_path: Path
) -> None:
    task, examples, notes = learn(tmp_path, labels, names=names, file=file)
    assert task.labels == classes
    assert (task.loss_name, task.uses_whole_batch, task.min_batch_size) == ("softmax", False, 1)
    assert task.main_metric == "accuracy"
    assert len(notes) == 1
    assert CLASSES in notes[0]
    if classes[0].lstrip("-").isdigit():
        assert notes[0].startswith(f"the labels {', '.join(map(repr, classes))} are")
        assert "set options.loss=cosent" in notes[0]
    by_hand = [classes.index(str(int(float(x))) if str(x)[0] in "-0123456789" else x) for x in labels]
    assert [task.encode_target(e.target) for e in examples] == by_hand
    assert task.collate_target([task.encode_target(e.target) for e in examples]).dtype == torch.int64


@pytest.mark.parametrize(
    ("labels", "names", "low_high"),
    [
        ([0, 1, 2, 3, 4, 5], SENTENCES, (0, 5)),  # STS in whole numbers
        ([0, 1, 2, 3], SENTENCES, (0, 3)),
        ([0, 2.5, 5], SENTENCES, (0, 5)),
        ([0.0, 0.5, 1.0], PREMISES, (0, 1)),
        ([0, 5, 10], SENTENCES, (0, 10)),
        ([0, 1, 0, 1], SENTENCES, (0, 1)),
        (["0", "1.5", "2"], SENTENCES, (0, 2)),
        ([True, False], SENTENCES, (0, 1)),
        ([0, 1, 2], ("sentence1", "sentence2", "score"), (0, 2)),
        ([0, 1, 2], ("premise", "hypothesis", "similarity"), (0, 2)),
    ],
)  # fmt: skip
def test_scores_stay_scores(
    labels: list[Any], names: tuple[str, str, str], low_high: tuple[int, int], tmp_path: Path
) -> None:
    columns = [] if names[2] in {"label", "score"} else [f"data.columns={{label: {names[2]}}}"]
    task, _, notes = learn(tmp_path, labels, *columns, names=names)
    assert (task.labels, task.loss_name, task.score_range) == ((), "cosent", low_high)
    assert notes == []
    kind = "labels 0 and 1" if task.is_binary else f"scores from {low_high[0]} to {low_high[1]}"
    assert task.describe() == f"matching by cosent; {kind}, a higher one says that texts are more alike"


@pytest.mark.parametrize("setting", ["options.loss=cosent", "options.metric=spearman", "options.loss=cosine"])
def test_the_settings_say_that_numbers_are_scores(setting: str, tmp_path: Path) -> None:
    task, _, notes = learn(tmp_path, [0, 1, 2, 0], setting, names=PREMISES)
    assert (task.labels, task.score_range, notes) == ((), (0, 2), [])


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([-1, 0, 1, 2], PREMISES, r"labels are '-1', '0', '1', '2'. .*data.drop_labels=\[-1\]"),
        ([-1, 0, 1, 2], SENTENCES, r"data.drop_labels=\[-1\]. Else set options.loss=cosent if"),
        ([0, 1, 2, 3, 4], PREMISES, r"may be scores or classes; set options.loss=cosent if .* options.loss=softmax"),
        ([0, 1, 2], ("query", "document", "label"), "may be scores or classes"),
        ([*WORDS, "-"], PREMISES, r"some labels are '-'.*data.drop_labels=\['-'\]"),
    ],
)  # fmt: skip
def test_what_may_be_both_is_refused(
    labels: list[Any], names: tuple[str, str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        learn(tmp_path, labels, names=names)
    assert learn(tmp_path, labels, "options.loss=softmax", names=names)[0].labels
    if "-" not in labels:
        assert not learn(tmp_path, labels, "options.loss=cosent", names=names)[0].labels


@pytest.mark.parametrize(("labels", "drop"), [([-1, 0, 1, 2], "[-1]"), ([*WORDS, "-"], "['-']")])
def test_the_advice_on_pairs_without_a_label_works(labels: list[Any], drop: str, tmp_path: Path) -> None:
    task, examples, _ = learn(tmp_path, labels, f"data.drop_labels={drop}", names=PREMISES)
    assert (len(task.labels), len(examples)) == (3, 3)


def test_words_among_numbers_are_a_mistake(tmp_path: Path) -> None:
    message = r"t.jsonl:3: 'label' is 'many', but 0.5 at .*t.jsonl:1; write numbers or words in all rows"
    with pytest.raises(DataError, match=message):
        learn(tmp_path, [0.5, 1, "many"])
    with pytest.raises(DataError, match=r"t.jsonl:2: 'label' is 3, but 'a' at .*t.jsonl:1"):
        learn(tmp_path, ["a", "3", "b"])
    task, examples, _ = learn(tmp_path, [0.5, 1, "many"], "data.bad_rows=skip")
    assert (task.labels, len(examples)) == ((), 2)
    for number in ("1,5", "inf", "1_000", "nan"):
        with pytest.raises(DataError, match=r"t.jsonl:2: 'label' must be a (finite )?number"):
            learn(tmp_path, [0.5, number])


@pytest.mark.parametrize(
    "setting", ["options.scale=5", "options.matryoshka=[4]", "options.metric=average_precision"]
)
def test_settings_of_scores_are_refused_with_the_reason(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{setting.split('=')[0]}") as caught:
        learn(tmp_path, WORDS, setting)
    if "metric" not in setting:
        assert "options.loss=softmax (chosen by the labels)" in str(caught.value)


def test_data_labels_are_classes(tmp_path: Path) -> None:
    task, _, notes = learn(tmp_path, [0, 1, 0], "data.labels=[0,1]")
    assert (task.labels, notes) == (("0", "1"), ["data.labels: learned as classes (options.loss=softmax)"])


def test_later_uses_go_by_what_was_learned(tmp_path: Path) -> None:
    """Dev rows, a resumed run, evaluation: whole numbers, floats and texts of one class are equal."""
    task, _, _ = learn(tmp_path, [0, 1, 2, 0], names=PREMISES)
    assert complete_state(task) is not None
    again = Match(task.options, DataConfig())
    again.load_state(json.loads(json.dumps(task.state())))
    assert (again.loss_name, again.labels, again.uses_whole_batch) == ("softmax", ("0", "1", "2"), False)
    for labels in ([2, 1, 0], [2.0, 1.0, 0.0], ["2", "1", "0"], ["2.0", "1.0", "0.0"]):
        dev = list(
            read_examples([write(tmp_path, labels, PREMISES, "d.jsonl")], again, again.data, lambda _: None)
        )
        check_examples(dev, again, again.data, lambda _: None)
        assert [again.encode_target(e.target) for e in dev] == [2, 1, 0]
        assert [again.stratify_key(e) for e in dev] == ["2", "1", "0"]
        predictions = [Prediction(label, 0.9) for label in ("2", "1", "1")]
        assert again.score(predictions, dev, intervals=False).values["accuracy"] == pytest.approx(2 / 3)
    for wrong in (3, 0.5, "entailment"):
        file = write(tmp_path, [wrong], PREMISES, "d.jsonl")
        dev = list(read_examples([file], again, again.data, lambda _: None))
        with pytest.raises(DataError, match=f"label '{wrong}' is not among the 3 labels"):
            check_examples(dev, again, again.data, lambda _: None)
    # classes of dev rows, where scores were learned
    task, _, _ = learn(tmp_path, [0, 1, 2, 3, 4, 5])
    dev = list(read_examples([write(tmp_path, WORDS, SENTENCES, "d.jsonl")], task, task.data, lambda _: None))
    with pytest.raises(
        DataError, match="'label' must be a number, as in the training rows, got 'entailment'"
    ):
        check_examples(dev, task, task.data, lambda _: None)


@pytest.mark.parametrize(("labels", "loss"), [([], "cosent"), (["a", "b"], "softmax")])
def test_models_of_earlier_versions_keep_their_loss(labels: list[str], loss: str) -> None:
    """Their state has no loss; a run that did not name one was trained by cosent."""
    for options in ([], [f"options.loss={loss}"]):
        _, task = prepare("match", options)
        assert isinstance(task, Match)
        task.load_state({"labels": labels, "score_range": [0, 5], "is_binary": False})
        assert (task.loss_name, task.uses_whole_batch) == (loss, loss == "cosent")


def test_stretched_scores_are_said(tmp_path: Path) -> None:
    task, _, _ = learn(tmp_path, [0, 2.5, 5], "options.loss=cosine")
    assert task.describe() == (
        "matching by cosine; scores from 0 to 5, cosines are predicted, where 0 stands for 0 and 1 for 5"
    )
    assert [task.encode_target(x) for x in (0, 2.5, 5)] == [0, 0.5, 1]
    assert "stands for" not in learn(tmp_path, [0, 0.5, 1], "options.loss=cosine")[0].describe()
