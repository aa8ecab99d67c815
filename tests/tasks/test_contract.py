"""What every task must do, checked for each task there is."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

import bertune
from bertune.commands.train import prepare
from bertune.data.dataset import EncodedDataset
from bertune.encoders.load import load_encoder
from bertune.errors import DataError
from bertune.heads.model import Model
from bertune.tasks import task_names
from bertune.tasks.base.reading import read_and_fit
from bertune.text.load import load_tokenizer

ADJECTIVES = {"good": 1.0, "great": 1.0, "fine": 1.0, "bad": -1.0, "awful": -1.0, "poor": -1.0}
NOUNS = ["dog", "cat", "tree", "house", "car", "book", "天", "地"]


@dataclass
class Case:
    """48 rows that a task can learn."""

    task: str
    rows: list[dict[str, object]]
    bad: dict[str, object]
    settings: list[str] = field(default_factory=list)
    enough: float = 0.95


def rows_of(label):
    return [{"text": f"the {n} is {a}", "label": label(a, n)} for a in ADJECTIVES for n in NOUNS]


def paired(label):
    return [{"text": f"a {n}", "text_b": f"{a} {n}", "label": label(a, n)} for a in ADJECTIVES for n in NOUNS]


def mood(a, n):
    return "positive" if ADJECTIVES[a] > 0 else "negative"


def tagged():
    """Spans of characters; the thing is one word or two, so that tags must go on."""
    kinds = {
        "dog": "animal",
        "cat": "animal",
        "tree": "plant",
        "house": "thing",
        "car": "thing",
        "book": "thing",
        "天": "sky",
        "地": "sky",
    }
    rows = []
    for size in ("", "big ", "small "):
        for a in ("good", "bad"):
            for n, kind in kinds.items():
                text = f"the {size}{n} is {a}"
                rows.append({"text": text, "label": [[4, 4 + len(size) + len(n), kind]]})
    return rows


CASES = {
    "classify": Case("classify", rows_of(mood), {"text": "", "label": "positive"}),
    "classify-pair": Case("classify", paired(mood), {"text": "a dog", "text_b": " ", "label": "positive"}, ["options.pooling=mean"]),
    "classify-focal": Case("classify", rows_of(mood), {"text": "a", "label": None}, ["options.loss=focal", "options.class_weights=balanced"]),
    "classify-multi": Case(
        "classify",
        rows_of(lambda a, n: [mood(a, n), *(["animal"] if n in {"dog", "cat"} else [])]),
        {"text": "a dog", "label": {"a": 1}},
        ["options.problem_type=multi_label", "options.pooling=max"],
        0.9,
    ),
    "regress": Case("regress", rows_of(lambda a, n: 3 + ADJECTIVES[a] * 2), {"text": "a dog", "label": "many"}, ["options.pooling=cls"], 0.9),
    "match": Case("match", paired(lambda a, _: int(ADJECTIVES[a] > 0)), {"text": "a dog", "text_b": " ", "label": 1}, ["options.embedding_dim=16"]),
    "match-cosine": Case(
        "match", paired(lambda a, _: 3 + 2 * ADJECTIVES[a]), {"text": "a", "text_b": "b", "label": "many"}, ["options.loss=cosine"], 0.85
    ),
    "match-contrastive": Case(
        "match", paired(lambda a, _: int(ADJECTIVES[a] > 0)), {"text": "a", "text_b": "b", "label": None}, ["options.loss=contrastive"]
    ),
    "match-softmax": Case(
        "match", paired(mood), {"text": "a dog", "text_b": None, "label": "positive"}, ["options.loss=softmax", "options.concat_product=true"]
    ),
    "embed": Case(
        "embed",
        [{"text": f"the {n} is {a}", "text_b": f"a {a} {n}"} for a in ADJECTIVES for n in NOUNS],
        {"text": "a dog", "text_b": ""},
        ["options.embedding_dim=16", "options.symmetric=true", "train.micro_batches=2"],
        0.9,
    ),
    "pretrain": Case("pretrain", rows_of(mood), {"text": ""}, ["options.packing=none"], 20.0),
    "pretrain-words": Case(
        "pretrain",
        [{"text": f"the {n} is {a}", "text_b": f"a {a} {n}"} for a in ADJECTIVES for n in NOUNS],
        {"text": "a dog", "text_b": ""},
        ["options.masking=whole_words", "options.packing=joined", "options.metric=accuracy", "options.ngrams=[0.7, 0.3]", "data.max_length=16", "train.epochs=20"],
        0.15,
    ),
    "tag": Case("tag", tagged(), {"text": ["a", "dog"], "label": ["O"]}, ["options.metric=f1"]),
    "tag-crf": Case("tag", tagged(), {"text": "a dog", "label": [[0, 9, "animal"]]}, ["options.decoder=crf", "options.scheme=BIOES"]),
}  # fmt: skip


def test_every_task_has_a_case():
    assert {case.task for case in CASES.values()} == set(task_names())


@pytest.fixture(params=CASES, scope="module")
def trained(request, tiny, tmp_path_factory):
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in case.rows), encoding="utf-8")
    settings = [
        f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={folder / 'out'}", "train.epochs=14", "train.batch_size=8",
        "train.learning_rate=3e-3", "train.eval_every=42", *case.settings,
    ]  # fmt: skip
    return case, file, bertune.train(case.task, settings, quiet=True)


def parts(case: Case, file: Path, tiny: Path):
    """Build the parts of a task by hand, up to one batch."""
    run, task = prepare(case.task, [f"data.train={file}", f"model={tiny}", *case.settings])
    examples = read_and_fit([str(file)], task, run.data, lambda _: None)
    encoder, report = load_encoder(tiny)
    tokenizer = load_tokenizer(tiny, encoder.max_positions, run.data)
    task.see_tokenizer(tokenizer)
    torch.manual_seed(0)
    return (
        task,
        examples,
        EncodedDataset(task.encode(examples, tokenizer)),
        Model(encoder, task.head(encoder, report.pooler)),
    )


def test_loss_is_finite_and_reaches_every_parameter(trained, tiny):
    case, file, _ = trained
    task, _, rows, model = parts(case, file, tiny)
    batch = task.prepare(rows.get_batch(range(12), task.collate_target), 1)
    loss = task.loss(model(batch), batch) / task.loss_denominator(batch)
    assert math.isfinite(loss.item())
    loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


def test_48_rows_are_learnt(trained):
    case, _, result = trained
    assert len(case.rows) == 48
    scores = result.scores["dev"]
    assert scores.main_value >= case.enough if scores.higher_is_better else scores.main_value <= case.enough
    assert set(result.scores["dev"].intervals) == {result.scores["dev"].main_metric}


def test_predictions_are_in_order_and_do_not_depend_on_the_batch(trained):
    case, _, result = trained
    model = bertune.load(result.folder)
    texts = [(r["text"], r["text_b"]) if "text_b" in r else r["text"] for r in case.rows]
    together = model.predict(texts)
    for place in (0, 7, 47):
        alone = model.predict([texts[place]])[0]
        assert same(alone.value, together[place].value)
        if alone.probabilities:
            assert alone.probabilities == pytest.approx(together[place].probabilities, abs=1e-5)
    backwards = model.predict(texts[::-1])
    assert all(same(a.value, b.value) for a, b in zip(backwards, together[::-1], strict=True))


def same(value, other):
    return value == pytest.approx(other, abs=1e-4) if isinstance(value, float) else value == other


def test_saved_and_loaded_gives_identical_scores(trained):
    _, file, result = trained
    evaluation = bertune.evaluate(result.folder, str(file))
    scores, loss = evaluation.scores, evaluation.loss
    assert scores.values == pytest.approx(result.scores["dev"].values, abs=1e-6)
    assert math.isfinite(loss)
    written = json.loads((result.folder / "scores.json").read_text(encoding="utf-8"))
    assert written["dev"]["values"] == pytest.approx(scores.values, abs=1e-6)


def test_a_bad_row_names_its_line(trained, tmp_path):
    case, file, _ = trained
    bad = tmp_path / "bad.jsonl"
    bad.write_text(file.read_text(encoding="utf-8") + json.dumps(case.bad) + "\n", encoding="utf-8")
    out = tmp_path / "never"
    with pytest.raises(DataError, match=r"bad\.jsonl:49: "):
        bertune.train(case.task, [f"data.train={bad}", f"out={out}", *case.settings], quiet=True)
    assert not out.exists()


def test_the_folder_is_complete_and_repeats_the_run(trained, tmp_path):
    case, _, result = trained
    names = {p.name for p in result.folder.iterdir()}
    if case.task in {"match", "embed"}:
        dense = {"2_Dense"} if {"options.embedding_dim=16"} & set(case.settings) else set()
        names -= {
            "modules.json",
            "1_Pooling",
            "sentence_bert_config.json",
            "config_sentence_transformers.json",
        } ^ dense
    assert names == {
        "README.md", "bertune.json", "config.json", "history.jsonl", "last", "model.safetensors", "run.yaml", "scores.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    settings = ["train.max_steps=4", "log.every=2"]
    runs = [
        bertune.train(str(result.folder / "run.yaml"), [f"out={tmp_path / name}", *settings], quiet=True)
        for name in "ab"
    ]
    assert runs[0].scores["dev"].values == runs[1].scores["dev"].values
    histories = [
        [json.loads(line) for line in (r.folder / "history.jsonl").read_text().splitlines()] for r in runs
    ]
    losses = [[h["loss"] for h in history if "loss" in h] for history in histories]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def test_predict_writes_every_row_without_targets(trained, tmp_path):
    from typer.testing import CliRunner

    from bertune.cli.app import app

    case, _, result = trained
    columns = [c for c in case.rows[0] if c != "label"]
    plain = tmp_path / "plain.csv"
    with plain.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", *columns])
        writer.writeheader()
        writer.writerows({"id": n, **{c: r[c] for c in columns}} for n, r in enumerate(case.rows))
    found = CliRunner().invoke(
        app, ["predict", str(result.folder), str(plain), "-o", str(tmp_path / "out.csv")]
    )
    assert found.exit_code == 0, found.output
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [r["id"] for r in read] == [str(n) for n in range(48)]
    assert [r["text"] for r in read] == [r["text"] for r in case.rows]
    assert all(r["prediction"] != "" for r in read)
