"""A run goes on from the head of another one where its weights mean the same, and says what it does."""

from __future__ import annotations

import json
import random
import shutil
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.builders import build_run
from tests.chinesebert_folder import write_folder

import bertune
from bertune.commands.train import prepare
from bertune.errors import ConfigError, Interrupted
from bertune.tasks.base.head_outputs import HeadOutputs, match_labels

WORDS = ["good", "bad", "fine", "awful", "great", "poor", "red", "green", "blue", "round"]
STILL = ["train.max_steps=1", "train.learning_rate=1e-12", "train.weight_decay=0", "train.precision=fp32"]
MOVED = ["train.max_steps=3", "train.learning_rate=1e-3", "train.head_learning_rate=0.1",
         "train.precision=fp32", "train.warmup_ratio=0"]  # fmt: skip


def labelled(labels, count=24):
    draw = random.Random(1)
    return [{"text": " ".join(draw.sample(WORDS, 3)), "label": labels[n % len(labels)]} for n in range(count)]


def pairs(labels, count=24):
    return [{**row, "text_b": WORDS[n % 10]} for n, row in enumerate(labelled(labels, count))]


def tagged(prefixes="BI", types=("a", "b"), count=24):
    first, last = prefixes[0], prefixes[-1]
    return [
        {"text": ["the", WORDS[n % 10], "dog", "is"], "label": ["O", f"{first}-{t}", f"{last}-{t}", "O"]}
        for n, t in enumerate(types * (count // len(types)))
    ]


SEVERAL = [{**row, "label": [row["label"], "x"][: 1 + n % 2]} for n, row in enumerate(labelled(["y", "z"]))]
NUMBERS = [{**row, "label": n % 5 + 0.5} for n, row in enumerate(labelled(["0"]))]
KINDS = {
    "classify": ("classify", labelled(["c", "a", "b"]), [], "head kept (3 labels)"),
    "classify mean": ("classify", labelled(["c", "a"]), ["options.pooling=mean"], "head kept (2 labels)"),
    "several labels": ("classify", SEVERAL, [], "head kept (3 labels)"),
    "pairs": ("classify", pairs(["c", "a"]), [], "head kept (2 labels)"),
    "regress": ("regress", NUMBERS, [], "head kept (a number)"),
    "regress cls": ("regress", NUMBERS, ["options.pooling=cls"], "head kept (a number)"),
    "tag": ("tag", tagged(), [], "head kept (5 tags)"),
    "tag crf": ("tag", tagged("BE", ("a",)), ["options.decoder=crf"], "head kept (5 tags)"),
    "match labels": ("match", pairs(["no", "yes"]), ["options.loss=softmax"], "head kept (2 labels)"),
    "match labels dense": (
        "match",
        pairs(["no", "yes"]),
        ["options.loss=softmax", "options.dense=[[8, tanh]]", "options.pooling=cls"],
        "head kept (2 labels)",
    ),
    "match scores": ("match", pairs([0, 1, 2, 4]), ["options.pooling=pooler"], None),
    "embed": ("embed", [{"text": r["text"], "text_b": r["text_b"]} for r in pairs(["a"])],
              ["options.embedding_dim=6"], None),
}  # fmt: skip
"""A task, rows, settings of the first run that the second one does not give, and what the second one says."""


def rates(task, rate):
    """What makes the layers with rates of their own as slow, or as fast, as the head."""
    return {
        "match labels": [f"options.classifier_learning_rate={rate}", "options.loss=softmax"],
        "tag crf": [f"options.crf_learning_rate={rate}"],
    }.get(task.removesuffix(" dense"), [])


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train(folder, name, task, rows, *settings):
    file = write_rows(folder / f"{name}.jsonl", rows)
    places = [f"data.train={file}", f"data.dev={file}", f"out={folder / name}"]
    return bertune.train(task, [*places, *settings], quiet=True).folder


def first_run(folder, tiny, kind, *settings):
    task, rows, made, _ = KINDS[kind]
    own = rates(kind, 0.1) if kind.startswith(("tag", "match labels")) else []
    moved = [line for line in MOVED if kind != "match labels" or "head" not in line]
    return train(folder, "first", task, rows, f"model={tiny}", *moved, *made, *own, *settings)


@pytest.fixture(scope="module")
def firsts(tiny, tmp_path_factory):
    """The folder of a finished run of each kind, made when it is first asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = first_run(tmp_path_factory.mktemp(kind.replace(" ", "-")), tiny, kind)
        return made[kind]

    return get


def said_by(settings, rows, overrides=()):
    """The run that is built, and the notes about its head."""
    built = build_run(settings, rows, overrides=overrides)
    begin = f"{settings['model']}: "
    return built, [note.removeprefix(begin) for note in built.report.notes if note.startswith(begin)]


def same_predictions(a, b, rows):
    """Compare all numbers of predictions of the texts of rows."""
    texts = [tuple(r[name] for name in ("text", "text_b") if name in r) for r in rows]
    texts = [t[0] if len(t) == 1 else t for t in texts]
    one, two = a.predict(texts), b.predict(texts)
    for p, q in zip(one, two, strict=True):
        if p.probabilities is not None:
            assert p.probabilities == pytest.approx(q.probabilities, abs=2e-5)
        elif isinstance(p.value, float):
            assert p.value == pytest.approx(q.value, abs=2e-4)
        else:
            assert [(e.start, e.end, e.label) for e in p.value] == [
                (e.start, e.end, e.label) for e in q.value
            ]
            assert [e.confidence for e in p.value] == pytest.approx([e.confidence for e in q.value], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_begins_with_what_the_model_predicts(kind, firsts, tmp_path):
    task, rows, _, _ = KINDS[kind]
    first = firsts(kind)
    second = train(tmp_path, "second", task, rows, f"model={first}", *STILL, *rates(kind, 1e-12))
    before, after = bertune.load(first, precision="fp32"), bertune.load(second, precision="fp32")
    if kind == "embed":
        np.testing.assert_allclose(after.encode(WORDS), before.encode(WORDS), atol=1e-5)
        return
    if kind.startswith("tag"):
        rows = [{"text": " ".join(row["text"])} for row in rows]
    same_predictions(before, after, rows)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind][3]])
def test_a_head_that_is_kept_is_named_and_no_weight_is_new(kind, firsts):
    task, rows, _, expected = KINDS[kind]
    settings = {"task": task, "model": str(firsts(kind)), "train": {"head": "keep"}}
    settings |= {"options": {"scheme": "BIOES"}} if kind == "tag crf" else {}
    built, said = said_by(settings, rows)
    assert said[0] == expected
    assert all(torch.equal(p, q) for p, q in zip(*head_weights(built, firsts(kind)), strict=True))


def head_weights(built, folder):
    saved = load_file(folder / "model.safetensors")
    head = built.model.head
    return list(head.parameters()), [saved[head.hf_name(name)] for name, _ in head.named_parameters()]


def test_labels_in_another_order_keep_their_own_weights(firsts, tmp_path):
    first = firsts("classify")
    rows = KINDS["classify"][1]
    settings = [f"model={first}", "data.labels=[b, c, a]", *STILL]
    second = train(tmp_path, "second", "classify", rows, *settings)
    after = bertune.load(second, precision="fp32")
    assert after.task.labels == ("b", "c", "a")
    same_predictions(bertune.load(first, precision="fp32"), after, rows)
    run = {"task": "classify", "model": str(first), "data": {"labels": ["b", "c", "a"]}}
    assert said_by(run, rows)[1] == ["head kept (3 labels, put into the order of this run)"]


def test_labels_that_both_have_keep_their_weights(firsts):
    first = firsts("classify")
    built, said = said_by({"task": "classify", "model": str(first)}, labelled(["d", "c", "b"]))
    assert said == ["head kept for 'b', 'c'; new: 'd'; left out: 'a'"]
    old = load_file(first / "model.safetensors")["classifier.weight"]  # a, b, c
    new = built.model.head.out.weight
    assert torch.equal(new[:2], old[1:]) and not torch.isin(new[2], old).any()


def test_a_pooler_is_kept_with_the_labels(firsts):
    built, _ = said_by({"task": "classify", "model": str(firsts("classify"))}, labelled(["a", "z"]))
    saved = load_file(firsts("classify") / "model.safetensors")
    assert torch.equal(built.model.head.dense.weight, saved["bert.pooler.dense.weight"])


REPLACED = {
    "other labels": ("classify", "classify", labelled(["x", "y"]), {},
                     "its 3 labels are 'a', 'b', 'c', the 2 labels here are 'x', 'y'"),
    "as many labels": ("classify", "classify", labelled(["x", "y", "z"]), {},
                       "its 3 labels are 'a', 'b', 'c', the 3 labels here are 'x', 'y', 'z'"),
    "several labels": ("several labels", "classify", labelled(["x", "y"]), {},
                       "it gives any number of labels a row, and task classify here needs one label a row"),
    "one label": ("classify", "classify", SEVERAL, {},
                  "it gives one label a row, and task classify here needs any number of labels a row"),
    "number": ("classify", "regress", NUMBERS, {},
               "it gives one label a row, and task regress here needs a number"),
    "label": ("regress", "classify", labelled(["x", "y"]), {},
              "it gives a number, and task classify here needs one label a row"),
    "tags": ("classify", "tag", tagged(), {},
             "it gives one label a row, and task tag here needs a tag a word"),
    "from tags": ("tag", "classify", labelled(["a", "b"]), {},
                  "it gives a tag a word, and task classify here needs one label a row"),
    "from pairs": ("match labels", "classify", labelled(["no", "yes"]), {},
                   "it gives the label of two vectors, and task classify here needs one label a row"),
    "from vectors": ("embed", "classify", labelled(["no", "yes"]), {},
                     "it gives vectors, and task classify here needs one label a row"),
    "pooling": ("classify", "classify", labelled(["a", "b", "c"]), {"pooling": "mean"},
                "options.pooling is pooler there and mean here"),
    "product": ("match labels", "match", pairs(["no", "yes"]), {"loss": "softmax", "concat_product": True},
                "options.concat_product is false there and true here"),
}  # fmt: skip
"""The first run, task and rows of the second one, its options, and why its head is new."""


@pytest.mark.parametrize("case", REPLACED)
def test_a_head_that_means_something_else_is_replaced(case, firsts):
    kind, task, rows, options, reason = REPLACED[case]
    first = firsts(kind)
    settings = {"task": task, "model": str(first), "options": options}
    built, said = said_by(settings, rows)
    assert said[0] == f"head replaced by a new one: {reason}"
    fresh = build_run({**settings, "train": {"head": "new"}}, rows)
    assert torch.equal(built.model.head.out.weight, fresh.model.head.out.weight)
    with pytest.raises(ConfigError) as error:
        build_run({**settings, "train": {"head": "keep"}}, rows)
    assert str(error.value).startswith(
        f"train.head=keep: the head of {str(first)!r} cannot be kept whole: {reason}"
    )


def test_layers_of_labels_come_and_go_on_the_same_vectors(firsts):
    scores, labels = pairs([0, 1, 2, 4]), pairs(["no", "yes"])
    built, said = said_by({"task": "match", "model": str(firsts("match labels dense"))}, scores)
    assert said == ["its vectors go on as they are; the layer that predicts labels is left out"]
    before, _ = said_by({"task": "match", "model": str(firsts("match labels dense"))}, labels)
    batch = built.dataset.get_batch(range(3), built.task.collate_target)
    vectors = [run.model.eval().vectors(batch.ragged) for run in (before, built)]
    assert torch.equal(*vectors)
    dense = load_file(firsts("match labels dense") / "model.safetensors")["bertune_head.dense.0.weight"]
    assert torch.equal(built.model.head.dense[0].weight, dense)
    other = {"task": "match", "model": str(firsts("match labels dense")), "options": {"pooling": "mean"}}
    assert said_by(other, scores)[1] == [
        "head replaced by a new one: it gives the label of two vectors, and task match here needs vectors"
    ]
    built, said = said_by({"task": "match", "model": str(firsts("match scores"))}, labels)
    assert said == ["its vectors go on as they are; the layer that predicts labels is new"]
    assert built.model.head.out is not None


@pytest.mark.parametrize(("before", "after", "said"), [
    ("crf", "crf", "head kept (5 tags)"),
    ("crf", "linear", "head kept (5 tags); the CRF's scores of pairs are left out"),
    ("linear", "crf", "head kept (5 tags); the CRF's scores of pairs are new"),
])  # fmt: skip
def test_a_crf_comes_and_goes(before, after, said, tiny, tmp_path):
    settings = [f"model={tiny}", f"options.decoder={before}", *MOVED]
    first = train(tmp_path, "first", "tag", tagged(), *settings)
    run = {"task": "tag", "model": str(first), "options": {"decoder": after}}
    built, lines = said_by(run, tagged())
    assert lines == [said]
    old, head = load_file(first / "model.safetensors"), built.model.head
    assert torch.equal(head.out.weight, old["classifier.weight"])
    if after == "crf":
        expected = old["bertune_head.crf.transitions"] if before == "crf" else torch.zeros(5, 5)
        assert torch.equal(head.crf["transitions"], expected)
    if before != after:
        with pytest.raises(ConfigError, match=r"only one of both heads has 'crf.end', 'crf.start', 'crf.tr"):
            build_run({**run, "train": {"head": "keep"}}, tagged())


def test_tags_are_found_by_name_in_another_scheme(firsts):
    first = firsts("tag crf")  # O and B, I, E, S of a
    built, said = said_by({"task": "tag", "model": str(first)}, tagged("BI", ("b", "a")))
    assert built.task.tags == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert said == ["head kept for 'O', 'B-a', 'I-a'; new: 'B-b', 'I-b'; left out: 'E-a', 'S-a'"]
    old, crf = load_file(first / "model.safetensors"), built.model.head.crf
    assert torch.equal(crf["transitions"][:3, :3], old["bertune_head.crf.transitions"][:3, :3])
    assert not crf["transitions"][3:].any() and not crf["transitions"][:, 3:].any()


def test_tags_that_share_nothing_but_o_are_new(firsts):
    _, said = said_by({"task": "tag", "model": str(firsts("tag"))}, tagged("BI", ("x",)))
    assert said == [
        "head replaced by a new one: its 5 tags are 'O', 'B-a', 'I-a', 'B-b', 'I-b', "
        "the 3 tags here are 'O', 'B-x', 'I-x'"
    ]


def test_the_form_of_the_head_is_taken_over_unless_given(firsts):
    said = []
    first = firsts("classify mean")
    run, task = prepare("classify", [f"model={first}"], said.append)
    assert (run.options["pooling"], task.options.pooling) == ("mean", "mean")
    assert said == [f"model {first}: pooling=mean taken over from the folder"]
    for setting in ("options.pooling=cls", "train.head=new", "train.reinit_layers=1"):
        said.clear()
        run, _ = prepare("classify", [f"model={first}", setting], said.append)
        assert (run.options["pooling"], said) == ("cls" if "cls" in setting else "pooler", [])
    assert prepare("regress", [f"model={first}"])[0].options["pooling"] == "pooler"
    run, _ = prepare("tag", [f"model={firsts('tag crf')}"])
    assert run.options["decoder"] == "crf"


def test_settings_of_texts_that_are_not_taken_over_are_said(tiny, tmp_path):
    first = train(
        tmp_path, "first", "classify", labelled(["a", "b"]), f"model={tiny}", *STILL, "data.max_length=9"
    )
    said = []
    prepare("classify", [f"model={first}"], said.append)
    assert said == [f"model {first}: of the folder's settings not taken over: data.max_length=9"]
    said.clear()
    prepare("classify", [f"model={first}", "data.max_length=9"], said.append)
    assert said == []


def test_another_range_of_numbers_is_said(firsts):
    rows = [{**row, "label": 10 * row["label"]} for row in NUMBERS]
    _, said = said_by({"task": "regress", "model": str(firsts("regress"))}, rows)
    assert said == ["head kept (a number, trained on targets from 0.5 to 4.5; here they go from 5 to 45)"]


def test_calibration_is_not_taken_over(tiny, tmp_path):
    settings = [f"model={tiny}", *STILL, "options.calibration=auto"]
    first = train(tmp_path, "first", "classify", labelled(["a", "b"]), *settings)
    built, said = said_by({"task": "classify", "model": str(first)}, labelled(["a", "b"]))
    assert said == ["head kept (2 labels)", "calibration of the folder: not taken over"]
    assert built.task.calibration is None


def test_rows_that_the_model_was_trained_on_are_named(firsts, tmp_path, capsys):
    first = firsts("classify")
    seen = write_rows(tmp_path / "seen.jsonl", KINDS["classify"][1])
    file = write_rows(tmp_path / "rows.jsonl", labelled(["b", "a", "c"], 18))
    settings = [f"data.train={file}", f"model={first}", *STILL]
    words = f"model: {first} was trained on the dev rows of this run, so their scores flatter it"
    bertune.train("classify", [*settings, f"data.dev={seen}", f"out={tmp_path / 'a'}"])
    assert words in capsys.readouterr().err
    bertune.train("classify", [*settings, f"data.dev={file}", f"out={tmp_path / 'b'}"])
    assert "was trained on" not in capsys.readouterr().err


def test_the_last_model_of_a_run_goes_on_too(firsts):
    last = firsts("classify") / "last"
    built, said = said_by({"task": "classify", "model": str(last)}, labelled(["a", "b", "c"]))
    assert said == ["head kept (3 labels)"]
    assert all(torch.equal(p, q) for p, q in zip(*head_weights(built, last), strict=True))


def transformers_folder(tiny, folder, model_class="AutoModelForSequenceClassification", **config):
    import transformers

    torch.manual_seed(3)
    model = getattr(transformers, model_class).from_pretrained(str(tiny), **config)
    model.save_pretrained(folder)
    for file in tiny.glob("*token*"):
        shutil.copy(file, folder)
    return model


FOREIGN = {
    "names": ({"id2label": {0: "b", 1: "a"}}, labelled(["a", "b"]), {},
              "head kept (2 labels, put into the order of this run)", [1, 0]),
    "numbers": ({"num_labels": 3}, labelled(["2", "0", "1"]), {},
                "head kept (3 labels); if '0', '1', '2' mean something else here, set train.head=new",
                [0, 1, 2]),
    "no names": ({"num_labels": 2}, labelled(["no", "yes"]), {},
                 "head kept (2 labels, which have no names there and are taken in their order: "
                 "LABEL_0 is no, LABEL_1 is yes)", [0, 1]),
    "given order": ({"num_labels": 2}, labelled(["no", "yes"]), {"labels": ["yes", "no"]},
                    "head kept (2 labels, which have no names there and are taken in their order: "
                    "LABEL_0 is yes, LABEL_1 is no)", [0, 1]),
    "other number": ({"num_labels": 3}, labelled(["no", "yes"]), {},
                     "head replaced by a new one: its 3 labels have no names (LABEL_0 ...), so nothing says "
                     "which of the 2 labels here is which", None),
    "several": ({"id2label": {0: "b", 1: "a"}, "problem_type": "multi_label_classification"},
                labelled(["a", "b"]), {},
                "head replaced by a new one: it gives any number of labels a row, and task classify here "
                "needs one label a row", None),
}  # fmt: skip
"""config.json of transformers, rows, settings of the data, what is said, and the rows of its last layer."""


@pytest.mark.parametrize("case", FOREIGN)
def test_a_head_of_transformers_is_kept(case, tiny, tmp_path):
    config, rows, data, expected, places = FOREIGN[case]
    theirs = transformers_folder(tiny, tmp_path / "base", **config)
    built, said = said_by({"task": "classify", "model": str(tmp_path / "base"), "data": data}, rows)
    assert said == [expected]
    if places is not None:
        assert torch.equal(built.model.head.out.weight, theirs.classifier.weight[places])
        assert torch.equal(built.model.head.dense.weight, theirs.bert.pooler.dense.weight)


def test_a_number_and_tags_of_transformers_are_kept(tiny, tmp_path):
    theirs = transformers_folder(tiny, tmp_path / "number", num_labels=1)
    built, said = said_by({"task": "regress", "model": str(tmp_path / "number")}, NUMBERS)
    assert said == ["head kept (a number)"]
    assert torch.equal(built.model.head.out.bias, theirs.classifier.bias)
    names = {"id2label": {0: "B-b", 1: "O", 2: "I-b", 3: "B-a", 4: "I-a"}}
    theirs = transformers_folder(tiny, tmp_path / "tags", "AutoModelForTokenClassification", **names)
    built, said = said_by({"task": "tag", "model": str(tmp_path / "tags")}, tagged())
    assert said == ["head kept (5 tags, put into the order of this run)"]
    assert torch.equal(built.model.head.out.weight, theirs.classifier.weight[[1, 3, 4, 0, 2]])


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "electra", "albert", "mpnet"])
def test_heads_of_other_architectures_are_kept(architecture, encoder_of, tmp_path):
    model = encoder_of(architecture)
    rows = labelled(["b", "a"])
    first = train(tmp_path, "first", "classify", rows, f"model={model}", *MOVED)
    second = train(tmp_path, "second", "classify", rows, f"model={first}", *STILL, "train.head=keep")
    same_predictions(bertune.load(first, precision="fp32"), bertune.load(second, precision="fp32"), rows)


def test_chinesebert_goes_on(tmp_path):
    rows = [{"text": "我天很好" if n % 2 else "不是大人", "label": "ab"[n % 2]} for n in range(12)]
    model = write_folder(tmp_path / "encoder")
    first = train(tmp_path, "first", "classify", rows, f"model={model}", *MOVED)
    second = train(tmp_path, "second", "classify", rows, f"model={first}", *STILL, "train.head=keep")
    same_predictions(bertune.load(first, precision="fp32"), bertune.load(second, precision="fp32"), rows)


def test_the_encoder_of_a_checkpoint_of_bertorch_goes_on(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    inner = {name.removeprefix("bert."): w for name, w in weights.items() if name.startswith("bert.")}
    head = {"classifier.weight": torch.ones(2, 32), "classifier.bias": torch.ones(2)}
    torch.save({**{f"encoder.{name}": w for name, w in inner.items()}, **head}, folder / "pytorch_model.bin")
    built, said = said_by({"task": "classify", "model": str(folder)}, labelled(["a", "b"]))
    assert said == [] and not built.model.head.out.bias.any()
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(built.model.encoder.hf_state_dict()[name], inner[name])
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"it has weights alone, as bertorch saves them; copy config.json"):
        build_run({"task": "classify", "model": str(folder)}, labelled(["a", "b"]))


OWN_TASK = """
from bertune.tasks.classify import Classify

class Own(Classify):
    '''Labels of a kind of its own.'''

    def head_outputs(self):
        return {outputs}
"""


def test_tasks_of_ones_own_keep_what_they_know(firsts, tmp_path):
    file = tmp_path / "own.py"
    rows = labelled(["a", "b", "c"])
    file.write_text(OWN_TASK.format(outputs="super().head_outputs()"), encoding="utf-8")
    assert said_by({"task": str(file), "model": str(firsts("classify"))}, rows)[1] == ["head kept (3 labels)"]
    first = train(tmp_path, "first", str(file), rows, f"model={firsts('classify')}", *STILL)
    assert said_by({"task": str(file), "model": str(first)}, rows)[1] == ["head kept (3 labels)"]
    assert said_by({"task": "classify", "model": str(first)}, rows)[1] == [
        f"head replaced by a new one: it was made with the task file {str(file)!r}"
    ]
    silent = tmp_path / "silent.py"
    silent.write_text(OWN_TASK.format(outputs="None"), encoding="utf-8")
    assert said_by({"task": str(silent), "model": str(firsts("classify"))}, rows)[1] == [
        f"head replaced by a new one: task {silent} does not say what its outputs mean (head_outputs)"
    ]


def test_an_encoder_alone_has_no_head_to_keep(tiny):
    settings = {"task": "classify", "model": str(tiny), "train": {"head": "keep"}}
    with pytest.raises(ConfigError, match=r"has no .* for the head of task classify; leave it out"):
        build_run(settings, labelled(["a", "b"]))
    assert said_by({"task": "classify", "model": str(tiny)}, labelled(["a", "b"]))[1] == []


def test_a_new_head_is_what_another_seed_would_change(firsts):
    settings = {"task": "classify", "model": str(firsts("classify")), "train": {"head": "new"}}
    rows = labelled(["a", "b", "c"])
    one, again, other = (build_run(settings, rows, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.model.head.out.weight, again.model.head.out.weight)
    assert not torch.equal(one.model.head.out.weight, other.model.head.out.weight)


def test_what_is_kept_does_not_depend_on_the_seed_and_draws_nothing(firsts):
    rows = labelled(["a", "b", "z"])
    settings = {"task": "classify", "model": str(firsts("classify"))}
    kept = build_run(settings, rows, seed=1)
    after_kept = torch.rand(3)
    new = build_run({**settings, "train": {"head": "new"}}, rows, seed=1)
    assert torch.equal(after_kept, torch.rand(3))
    assert torch.equal(kept.model.head.out.weight[2], new.model.head.out.weight[2])
    assert not torch.equal(kept.model.head.out.weight[0], new.model.head.out.weight[0])


def test_weights_that_another_tool_changed_are_named(firsts, tmp_path):
    folder = shutil.copytree(firsts("classify"), tmp_path / "first")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "classifier.weight": torch.ones(4, 32)}, folder / "model.safetensors")
    _, said = said_by({"task": "classify", "model": str(folder)}, labelled(["a", "b", "c"]))
    assert said == [
        "head replaced by a new one: its out.weight has the shape 4 x 32, where 3 x 32 is needed",
        "its weights have changed since bertune wrote it; labels are still those of bertune.json",
    ]


BAD = {
    "ensemble": (lambda f: write_rows(f / "bertune.json", [{"ensemble": []}]), "ensemble of several models"),
    "stopped": (lambda f: (f / "run.yaml").write_text("task: classify"), "--resume"),
    "checkpoint": (lambda f: (f / "checkpoint.json").write_text("{}"), "give the folder of the run"),
    "weights": (lambda f: torch.save({}, f / "pytorch_model.bin"), "copy config.json and the files of the"),
    "empty": (lambda f: None, "give the folder of a pretrained encoder"),
}


@pytest.mark.parametrize("case", BAD)
def test_folders_that_are_no_model_are_refused_with_what_to_do(case, tmp_path):
    make, expected = BAD[case]
    (tmp_path / "base").mkdir()
    make(tmp_path / "base")
    with pytest.raises(ConfigError, match=expected):
        train(tmp_path, "out", "classify", labelled(["a", "b"]), f"model={tmp_path / 'base'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [".", "last"])
def test_a_run_does_not_write_over_its_model(inside, firsts, tmp_path):
    folder = shutil.copytree(firsts("classify"), tmp_path / "run")
    with pytest.raises(ConfigError, match="would write over; give another folder"):
        train(tmp_path, "run", "classify", labelled(["a", "b"]), f"model={folder / inside}")


def test_a_damaged_bertune_json_is_named(firsts, tmp_path):
    folder = shutil.copytree(firsts("classify"), tmp_path / "first")
    (folder / "bertune.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"damaged.*a copy of the folder without bertune.json"):
        build_run({"task": "classify", "model": str(folder)}, labelled(["a", "b"]))


class StopAt(bertune.Listener):
    """A signal after a step."""

    def __init__(self, step):
        self.step = step

    def on_log(self, record):
        if record["step"] == self.step:
            signal.raise_signal(signal.SIGTERM)


def test_a_run_from_another_one_resumes_bit_for_bit(firsts, tmp_path):
    first = shutil.copytree(firsts("classify"), tmp_path / "first")
    file = write_rows(tmp_path / "rows.jsonl", labelled(["a", "d", "c"]))
    settings = [f"data.train={file}", f"data.dev={file}", f"model={first}", "train.max_steps=6",
                "train.batch_size=8", "log.every=1", "train.reinit_layers=1"]  # fmt: skip
    for more in ([], ["train.reinit_layers=0"]):
        whole, parts = tmp_path / f"whole{len(more)}", tmp_path / f"parts{len(more)}"
        bertune.train("classify", [*settings, *more, f"out={whole}"], quiet=True)
        with pytest.raises(Interrupted):
            bertune.train("classify", [*settings, *more, f"out={parts}"], quiet=True, listeners=[StopAt(4)])
        bertune.train(parts, quiet=True, resume=True)
        a, b = (load_file(folder / "last" / "model.safetensors") for folder in (whole, parts))
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_model_that_has_gone_is_named_when_a_run_resumes(firsts, tmp_path):
    first = shutil.copytree(firsts("classify"), tmp_path / "first")
    file = write_rows(tmp_path / "rows.jsonl", labelled(["a", "b", "c"]))
    settings = [f"data.train={file}", f"data.dev={file}", f"model={first}", f"out={tmp_path / 'out'}"]
    with pytest.raises(Interrupted):
        bertune.train("classify", [*settings, "log.every=1"], quiet=True, listeners=[StopAt(1)])
    shutil.rmtree(first)
    with pytest.raises(ConfigError, match="goes on with the model that it began with only"):
        bertune.train(tmp_path / "out", quiet=True, resume=True)


def test_a_run_that_is_not_finished_is_a_model_with_a_word_about_it(firsts, tmp_path):
    first = shutil.copytree(firsts("classify"), tmp_path / "first")
    (first / "checkpoints").mkdir()
    said = []
    prepare("classify", [f"model={first}"], said.append)
    assert said == [
        f"model {first}: its run is not finished; the best model that it has saved so far is taken"
    ]


def test_the_run_file_repeats_the_run(firsts, tmp_path):
    first = firsts("classify mean")
    rows = labelled(["a", "c"])
    second = train(tmp_path, "second", "classify", rows, f"model={first}", *MOVED)
    third = bertune.train(second / "run.yaml", [f"out={tmp_path / 'third'}"], quiet=True).folder
    a, b = (load_file(folder / "model.safetensors") for folder in (second, third))
    assert all(torch.equal(a[name], b[name]) for name in a)


NAMES = st.lists(st.sampled_from("abcdefg"), min_size=1, unique=True)


@given(NAMES, NAMES)
def test_outputs_go_on_from_those_of_the_same_name(here, there):
    found = match_labels(HeadOutputs("x", tuple(here)), HeadOutputs("x", tuple(there)))
    assert len(found.places) == len(here)
    for label, place in zip(here, found.places, strict=True):
        assert (there[place] == label) if place is not None else label not in there


@given(NAMES)
def test_labels_without_names_are_matched_only_if_there_are_as_many(labels):
    there = HeadOutputs("x", ("LABEL_0", "LABEL_1", "LABEL_2"))
    found = match_labels(HeadOutputs("x", tuple(labels), by_position=tuple(labels)), there)
    assert found.places == ((0, 1, 2) if len(labels) == 3 else (None,) * len(labels))
