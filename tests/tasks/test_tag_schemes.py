"""Tags without prefixes, one tag a word, prefixes without types, and numbers: trained, scored, saved, resumed."""

from __future__ import annotations

import json
import os
import signal

import pytest
from tests.builders import read_tagging_file

import bertune
from bertune.commands.train import prepare
from bertune.errors import ConfigError, DataError, Interrupted
from bertune.metrics.spans import count_tags, tag_scores
from bertune.tasks.base.reading import read_and_fit
from bertune.training.history import History
from bertune.types import Entity, Prediction

WORDS = {"the": "DET", "a": "DET", "dog": "NOUN", "cat": "NOUN", "is": "VERB", "good": "ADJ", "bad": "ADJ"}
POS = [
    {"text": [article, noun, "is", mood], "label": [WORDS[w] for w in (article, noun, "is", mood)]}
    for article in ("the", "a")
    for noun in ("dog", "cat")
    for mood in ("good", "bad")
] * 2
TYPES = {"dog": "art-animal", "cat": "art-animal", "good": "B-cell"}
IO = [{"text": row["text"], "label": [TYPES.get(word, "O") for word in row["text"]]} for row in POS]
UNTYPED = [{"text": ["the", "big", "dog", "is"], "label": ["O", "B", "I", "O"]}] * 8
FAST = ["train.epochs=14", "train.batch_size=4", "train.learning_rate=5e-3", "log.every=1000"]


def settings_of(tiny, folder, rows, *more):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={folder / 'out'}", *more]


def fitted(write, rows, *overrides):
    """A task that has read some rows, its examples, and the notes about them."""
    file = write("rows.jsonl", rows)
    run, task = prepare("tag", [f"data.train={file}", *overrides])
    notes: list[str] = []
    return task, read_and_fit([file], task, run.data, notes.append), notes


@pytest.mark.parametrize("decoder", ["linear", "crf"])
def test_one_tag_a_word_is_learned_and_saved(decoder, tiny, tmp_path):
    more = ["options.scheme=none", f"options.decoder={decoder}", *FAST]
    result = bertune.train("tag", settings_of(tiny, tmp_path, POS, *more), quiet=True)
    assert result.scores["dev"].main_metric == "accuracy"
    assert result.scores["dev"].main_value == 1.0
    assert set(result.scores["dev"].per_label) == {"ADJ", "DET", "NOUN", "VERB"}
    config = json.loads((result.folder / "config.json").read_text())
    assert list(config["id2label"].values()) == ["ADJ", "DET", "NOUN", "VERB"]
    model = bertune.load(result.folder)
    (found,) = model.predict([["the", "cat", " ", "is", "bad"]])
    assert [tag for _, tag in found.tags] == ["DET", "NOUN", "_", "VERB", "ADJ"]
    assert [entity[2:4] for entity in found.value] == [
        ("DET", "the"), ("NOUN", "cat"), ("VERB", "is"), ("ADJ", "bad"),
    ]  # fmt: skip
    scores = bertune.evaluate(result.folder, str(tmp_path / "rows.jsonl"), precision="fp32").scores
    assert scores.values == {"accuracy": 1.0, "f1_macro": 1.0}


@pytest.mark.parametrize("decoder", ["linear", "crf"])
def test_types_without_prefixes_are_learned_and_saved(decoder, tiny, tmp_path):
    rows = [{"text": r["text"], "label": [t.replace("B-cell", "cell") for t in r["label"]]} for r in IO]
    more = ["options.scheme=io", f"options.decoder={decoder}", *FAST]
    result = bertune.train("tag", settings_of(tiny, tmp_path, rows, *more), quiet=True)
    assert result.scores["dev"].values["f1"] == 1.0
    (found,) = bertune.load(result.folder).predict([["the", "dog", "is", "good"]])
    assert [tag for _, tag in found.tags] == ["O", "art-animal", "O", "cell"]
    assert [entity[2:4] for entity in found.value] == [("art-animal", "dog"), ("cell", "good")]


def test_a_stopped_run_of_one_tag_a_word_goes_on_as_if_it_had_not_stopped(tiny, tmp_path, monkeypatch):
    more = ["options.scheme=none", "options.decoder=crf", "train.batch_size=4", "train.epochs=2"]
    folders = [tmp_path / name for name in ("straight", "stopped")]
    for folder in folders:
        folder.mkdir()
    bertune.train("tag", settings_of(tiny, folders[0], POS, *more), quiet=True)
    settings = settings_of(tiny, folders[1], POS, *more)
    with monkeypatch.context() as patch:
        patch.setattr(
            History,
            "on_step",
            lambda _, step, total: os.kill(os.getpid(), signal.SIGINT) if step == 3 else None,
        )
        with pytest.raises(Interrupted):
            bertune.train("tag", settings, quiet=True)
    bertune.train("tag", settings, quiet=True, resume=True)
    straight, stopped = ((folder / "out/model.safetensors").read_bytes() for folder in folders)
    assert straight == stopped


def test_a_file_in_bio_trains_a_model_in_io(write):
    task, examples, notes = fitted(
        write, [{"text": ["New", "York", "is"], "label": ["B-LOC", "I-LOC", "O"]}], "options.scheme=io"
    )
    assert task.tags == ["O", "LOC"]
    assert examples[0].target == ((0, 8, "LOC"),)
    assert any("tags in BIO" in note for note in notes)
    _, _, notes = fitted(write, IO, "options.scheme=io")
    assert any("tags without prefixes; 8 have one, which is read as such" in note for note in notes)


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        (IO, r"'art-animal' is not a tag; .* options\.scheme=io"),
        (POS, r"'DET' is not a tag; .* one tag a word, .* options\.scheme=none"),
        (
            [{"text": ["a", "b"], "label": [1, 0]}],
            r"number 1; name the tags .* data\.labels=\[O,B-PER,I-PER\]",
        ),
    ],
)
def test_other_tags_say_which_setting_reads_them(rows, advice, write):
    with pytest.raises(DataError, match=advice):
        fitted(write, rows)


def test_prefixes_without_types_are_entities_of_one_type(write):
    task, examples, notes = fitted(write, UNTYPED)
    assert task.entity_types == ("SPAN",)
    assert examples[0].target == ((4, 11, "SPAN"),)
    assert any("tags in BIO ('B', 'I', 'O')" in note for note in notes)
    segmented = [{"text": list("高勇来了"), "label": ["B", "E", "S", "S"]}, {"text": ["高"], "label": ["S"]}]
    assert fitted(write, segmented)[0].tags == ["O", "B-SPAN", "I-SPAN", "E-SPAN", "S-SPAN"]


@pytest.mark.parametrize("labels", [["B-x", "I"], ["B", "O"], ["O", "I"]])
def test_a_tag_without_a_type_among_tags_with_types_is_a_slip(labels, write):
    rows = [{"text": ["a", "b"], "label": ["B-x", "I-x"]}, {"text": ["a", "b"], "label": labels}]
    with pytest.raises(
        DataError, match=r"rows\.jsonl:2: the tag '[BI]' has no type, and 'B-x' at .*:1 has one"
    ):
        fitted(write, rows)


def test_spans_are_no_tags_of_words(write):
    with pytest.raises(
        DataError, match=r"'label' must be a list with a tag for each word, since options\.scheme"
    ):
        fitted(write, [{"text": "a dog", "label": [[2, 5, "NOUN"]]}], "options.scheme=none")


@pytest.mark.parametrize("scheme", ["bio", "BIO", "Bmes", "IO", "io", "None", "NONE"])
def test_schemes_are_written_in_any_case(scheme):
    task = prepare("tag", ["data.train=rows.jsonl", f"options.scheme={scheme}"])[1]
    assert task.scheme == {"bio": "BIO", "bmes": "BMES"}.get(scheme.lower(), scheme.lower())


@pytest.mark.parametrize(
    ("scheme", "metric"),
    [("none", "boundary_f1"), ("none", "type_f1"), ("io", "accuracy"), ("auto", "accuracy")],
)
def test_metrics_that_do_not_fit_the_scheme_are_refused(scheme, metric):
    with pytest.raises(ConfigError, match=f"metric {metric} does not fit scheme {scheme}; use one of"):
        prepare("tag", ["data.train=x.jsonl", f"options.scheme={scheme}", f"options.metric={metric}"])


def test_accuracy_counts_words():
    gold = [[(0, 1, "A"), (2, 3, "B"), (4, 5, "A")], [(0, 1, "B")]]
    predicted = [[(0, 1, "A"), (2, 3, "A"), (4, 5, "A")], []]  # the word of the second text has no tokens
    found = tag_scores(count_tags(gold, predicted, ["A", "B"]))
    assert found == {"accuracy": 0.5, "f1_macro": pytest.approx((4 / 5 + 0) / 2)}


def test_the_accuracy_of_a_task(write):
    task, examples, _ = fitted(write, POS[:1], "options.scheme=none")
    text = examples[0].texts[0]
    wrong = Entity(0, 3, "NOUN", "the", 1.0)
    right = [Entity(*span, text[span.start : span.end], 1.0) for span in examples[0].target[1:]]
    scores = task.score([Prediction((wrong, *right))], examples)
    assert scores.values["accuracy"] == 0.75
    assert scores.main_metric == "accuracy"


def test_numbers_are_named_after_a_run_is_saved(tiny, tmp_path, write):
    """Also where the file that named them has gone."""
    names = tmp_path / "names.txt"
    names.write_text("O\nB-x\nI-x\n")
    rows = [{"text": ["a", "big", "dog"], "label": [0, 1, 2]}] * 4
    more = [f"data.labels={names}", "train.max_steps=1"]
    result = bertune.train("tag", settings_of(tiny, tmp_path, rows, *more), quiet=True)
    names.unlink()
    scores = bertune.evaluate(result.folder, str(tmp_path / "rows.jsonl"))
    assert set(scores.scores.per_label) == {"x"}


def test_a_saved_task_does_not_ask_for_the_file_of_its_labels(write):
    task, _, _ = fitted(write, UNTYPED)
    state = {name: value for name, value in task.state().items() if name != "tag_names"}  # as it was
    saved = prepare("tag", ["data.train=x.jsonl", "data.labels=gone.txt"])[1]
    saved.load_state(state)
    rows, _ = read_tagging_file(write("rows.jsonl", UNTYPED[:1]))
    assert saved.read(rows[0]).target == ((4, 11, "SPAN"),)


@pytest.mark.parametrize("scheme", ["io", "none"])
def test_state_is_enough_to_go_on(scheme, write):
    rows = IO if scheme == "io" else POS
    task, examples, _ = fitted(write, rows, f"options.scheme={scheme}")
    fresh = prepare("tag", ["data.train=x.jsonl", f"options.scheme={scheme}"])[1]
    fresh.load_state(json.loads(json.dumps(task.state())))
    assert (fresh.tags, fresh.scheme) == (task.tags, task.scheme)
    assert [fresh.read(row) for row in read_tagging_file(write("rows.jsonl", rows))[0]] == list(examples)


def test_one_undivided_sentence_is_refused_as_training_rows(write):
    file = write("t.conll", "".join(f"w{n} B-x\n. O\n" for n in range(60)))
    run, task = prepare("tag", [f"data.train={file}"])
    with pytest.raises(
        DataError, match=r"all 120 words of the training rows are one sentence: .*sentence_ends"
    ):
        read_and_fit([file], task, run.data, lambda _: None)
    run, task = prepare("tag", [f"data.train={file}", 'data.sentence_ends=["."]'])
    assert len(read_and_fit([file], task, run.data, lambda _: None)) == 60
    run, task = prepare("tag", [f"data.train={file}", "data.sentence_ends=[]"])
    assert len(read_and_fit([file], task, run.data, lambda _: None)) == 1
