"""match and embed where they could go wrong unseen: parts of a batch, formulas number by number, odd files, what decides, vectors."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import build_run
from tests.conftest import make_encoder
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.commands.train import prepare
from bertune.config.schema import DataConfig
from bertune.data.dataset import EncodedDataset
from bertune.encoders.load import load_encoder
from bertune.errors import ConfigError, DataError
from bertune.heads.model import Model
from bertune.heads.sentence import SentenceOutput
from bertune.tasks.base.reading import read_examples, read_splits
from bertune.tasks.embed import Embed, EmbedOptions
from bertune.tasks.match import Match, MatchOptions
from bertune.text.load import load_tokenizer
from bertune.training.rng import RngState
from bertune.training.step import TrainStep
from bertune.types import Batch, EncodedExample, Example, Location, Numerics, PairIndex, Ragged, Row

CPU = torch.device("cpu")
NOUNS = ["dog", "cat", "tree", "house", "car", "book"]
WORDS = ["good", "bad", "fine", "red"]
PAIRS = [
    {"text": f"the {n} is {a}", "text_b": f"a {a} {n}{' and not very big' * (len(a) % 3)}"}
    for n in NOUNS
    for a in WORDS
]
HARD = [{**row, "negative": f"a {a} house"} for row, a in zip(PAIRS, WORDS * 6, strict=True)]
SINGLE = [{"text": row["text"]} for row in PAIRS] + [{"text": PAIRS[0]["text"]}]
SCORED = [{**row, "label": n % 5} for n, row in enumerate(PAIRS)]
LABELLED = [{**row, "label": n % 2} for n, row in enumerate(PAIRS)]
KINDS = ["bert", "ernie", "roberta", "electra", "distilbert", "albert", "mpnet", "deberta", "deberta-v2"]


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def examples_of(task, rows):
    return [task.read(Row(row, Location("rows", n))) for n, row in enumerate(rows, 1)]


def build(folder, name, rows, options=None, precision="fp32", **train) -> TrainStep:
    """A run before its first step, whose gradients are not cut."""
    given = {"max_steps": 1, "batch_size": 32, "max_grad_norm": 0, "micro_batch_tokens": None, **train}
    settings = {"task": name, "model": str(folder), "options": options or {}, "train": given}
    built = build_run(settings, rows, seed=0)
    built.model.encoder.set_numerics(Numerics(precision, built.run.train.fast_dropout))
    work = built.step()
    work.model.train()
    return work


def step(work: TrainStep, rows) -> tuple[float, dict[str, torch.Tensor]]:
    """Take one step; return the summed loss and the gradient of each parameter that has one."""
    work.step(list(rows))
    return float(work.state.loss), {
        n: p.grad.clone() for n, p in work.model.named_parameters() if p.grad is not None
    }


def close(found, expected, atol=1e-6):
    assert found.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 1e-3
    atol *= max(1.0, largest)
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=atol, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


# ---------------------------------------------------------------- parts of a batch


CUTS = {
    "rows": {"micro_batches": 4},
    "tokens": {"micro_batch_tokens": 24},
    "text by text": {"micro_batch_tokens": 1},
}
JOINT = {
    "packed, hard negatives": ("albert", "embed", HARD, {}),
    "padded, symmetric": ("mpnet", "embed", PAIRS, {"symmetric": True}),
    "first and last layer": ("bert", "embed", HARD, {"pooling": "first_last_avg", "normalize": True}),
    "the last layer for first tokens": (
        "bert",
        "embed",
        SINGLE,
        {"pooling": "pooler", "mask_false_negatives": False},
    ),
    "cosent, several widths": ("distilbert", "match", SCORED, {"matryoshka": [4, 16], "pooling": "max"}),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", JOINT)
def test_gradients_do_not_depend_on_the_parts(name, cut, encoder_of):
    kind, task, rows, options = JOINT[name]
    places = range(1, len(rows), 2)
    loss, whole = step(build(encoder_of(kind), task, rows, options, dropout=0), places)
    work = build(encoder_of(kind), task, rows, options, dropout=0, **CUTS[cut])
    assert len(
        work.gradient.text_parts(work.dataset.get_batch(list(places), work.task.collate_target), 1)
    ) >= (20 if cut == "text by text" else 3)
    loss_of_parts, parts = step(work, places)
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    close(parts, whole, atol=2e-6)


@pytest.mark.parametrize("task", ["embed", "match"])
def test_adversarial_gradients_do_not_depend_on_the_parts(task, encoder_of):
    rows = {"embed": PAIRS, "match": SCORED}[task]
    loss, whole = step(build(encoder_of("bert"), task, rows, dropout=0, fgm=0.5), range(12))
    for cut in CUTS.values():
        loss_of_parts, parts = step(
            build(encoder_of("bert"), task, rows, dropout=0, fgm=0.5, **cut), range(12)
        )
        assert loss_of_parts == pytest.approx(loss, rel=1e-5)
        close(parts, whole, atol=1e-5)
    _, once = step(build(encoder_of("bert"), task, rows, dropout=0), range(12))
    with pytest.raises(AssertionError):
        close(once, whole, atol=1e-5)


def test_the_gradient_is_cut_once_where_vectors_are_shared(encoder_of):
    _, whole = step(build(encoder_of("bert"), "embed", PAIRS, dropout=0), range(12))
    norm = torch.stack([g.norm() for g in whole.values()]).norm().item()
    _, cut = step(
        build(encoder_of("bert"), "embed", PAIRS, dropout=0, micro_batches=4, max_grad_norm=norm / 10),
        range(12),
    )
    close({n: 10 * g for n, g in cut.items()}, whole, atol=1e-5)


DROPPED = {
    "packed": ("albert", "embed", PAIRS, {}, {}),
    "packed, torch's own": ("albert", "embed", PAIRS, {}, {"fast_dropout": False}),
    "padded": ("mpnet", "embed", HARD, {}, {}),
    "two passes": ("bert", "embed", SINGLE, {"pooling": "cls"}, {}),
    "first and last layer": ("distilbert", "match", SCORED, {"pooling": "first_last_avg"}, {}),
    "bf16": ("bert", "embed", PAIRS, {"pooling": "pooler"}, {"precision": "bf16"}),
    "bf16, padded": ("mpnet", "embed", PAIRS, {}, {"precision": "bf16"}),
}


@pytest.mark.parametrize("name", DROPPED)
def test_a_part_is_encoded_twice_with_one_dropout(name, encoder_of):
    """What comes out is the gradient of one graph over parts that were encoded once, and the random state after it."""
    kind, task, rows, options, more = DROPPED[name]
    make = lambda: build(encoder_of(kind), task, rows, options, dropout=0.3, micro_batches=3, **more)  # noqa: E731
    places = [*range(11), len(rows) - 1]
    loss, cached = step(make(), places)
    after = RngState.capture(CPU)

    work = make()
    batch = work.dataset.get_batch(places, work.task.collate_target)
    cuts = work.gradient.text_parts(batch, 1)
    assert len(cuts) == 3
    vectors = torch.cat([work.model.vectors(batch.ragged.slice_rows(cut[0], cut[-1] + 1)) for cut in cuts])
    assert vectors.requires_grad
    direct = work.task.loss(work.model.compare(vectors, batch.pair_index), batch)
    (direct / len(places)).backward()
    assert loss == pytest.approx(direct.item(), rel=1e-6)
    bf16 = more.get("precision") == "bf16"
    close(
        cached,
        {n: p.grad for n, p in work.model.named_parameters() if p.grad is not None},
        atol=1e-3 if bf16 else 2e-6,
    )
    now = RngState.capture(CPU)
    assert torch.equal(now.torch_state, after.torch_state)
    assert now.bytes_state == after.bytes_state
    other, _ = step(build(encoder_of(kind), task, rows, options, dropout=0, micro_batches=3, **more), places)
    assert other != pytest.approx(loss, rel=1e-4)  # there was dropout


def test_two_passes_of_a_text_differ_by_dropout_alone(encoder_of):
    for rate, same in ((0, True), (0.2, False)):
        work = build(encoder_of("bert"), "embed", SINGLE, {"pooling": "cls"}, dropout=rate)
        out = work.model(work.dataset.get_batch(range(4), work.task.collate_target))
        assert torch.allclose(out.text_vectors(0), out.text_vectors(1), atol=1e-5) == same


def test_two_passes_of_a_text_may_lie_in_different_parts(encoder_of):
    work = build(encoder_of("bert"), "embed", SINGLE, dropout=0.3, micro_batch_tokens=1)
    batch = work.dataset.get_batch([0, 5, len(SINGLE) - 1], work.task.collate_target)
    assert len(batch.ragged.lengths) == 4  # two passes of each different text
    assert [side.tolist() for side in batch.pair_index.text_index] == [[0, 2, 0], [1, 3, 1]]
    first, again, other, other_again = batch.pair_index.text_ids.tolist()
    assert (first, other) == (again, other_again)
    assert first != other
    vectors = torch.cat([work.model.vectors(batch.ragged.slice_rows(n, n + 1)) for n in range(4)])
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-3)
    assert not torch.allclose(vectors[2], vectors[3], atol=1e-3)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_batch_of_equal_scores_changes_nothing(accumulate, encoder_of):
    """CoSENT has no pair to compare then; the other batches of the run do."""
    work = build(
        encoder_of("bert"),
        "match",
        SCORED,
        dropout=0,
        micro_batches=accumulate,
        learning_rate=1e-2,
        weight_decay=0,
    )
    before = {n: p.detach().clone() for n, p in work.model.named_parameters()}
    loss, gradients = step(work, range(0, 20, 5))
    assert loss == 0
    assert all(bool((g == 0).all()) for g in gradients.values())
    assert all(torch.equal(p, before[n]) for n, p in work.model.named_parameters())


# ---------------------------------------------------------------- losses, number by number


def compared(vectors, places):
    """Rows of texts whose vectors are at hand; a text's number is its identity."""
    number = torch.arange(len(vectors))
    empty = torch.zeros(0, dtype=torch.int64)
    batch = Batch(
        Ragged(empty, empty, torch.zeros(1, dtype=torch.int64), ()), None, tuple(range(len(places)))
    )
    sides = tuple(torch.tensor(side) for side in zip(*places, strict=True))
    return SentenceOutput(vectors, PairIndex(sides, number)), batch


def cos(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def embed_loss(vectors, rows, o: EmbedOptions):
    """What the documents say, one number after the other."""
    partners: dict[int, set[int]] = {}
    for row in rows:
        partners.setdefault(row[0], set()).add(row[1])

    def is_negative(query: int, text: int) -> bool:
        return not o.mask_false_negatives or (text != query and text not in partners[query])

    def search(own: float, others: list[float]) -> float:
        own = o.scale * (own - o.margin)
        return math.log(sum(math.exp(x) for x in [own, *(o.scale * x for x in others)])) - own

    candidates = [(row, side) for side in range(1, len(rows[0])) for row in range(len(rows))]
    forth = back = 0.0
    for i, row in enumerate(rows):
        others = [
            rows[j][side]
            for j, side in candidates
            if (j, side) != (i, 1) and is_negative(row[0], rows[j][side])
        ]
        forth += search(
            cos(vectors[row[0]], vectors[row[1]]), [cos(vectors[row[0]], vectors[text]) for text in others]
        )
        askers = [rows[j][0] for j in range(len(rows)) if j != i and is_negative(rows[j][0], row[1])]
        back += search(
            cos(vectors[row[0]], vectors[row[1]]), [cos(vectors[row[1]], vectors[text]) for text in askers]
        )
    return (forth + back) / 2 if o.symmetric else forth


@settings(max_examples=60)
@given(st.data())
def test_the_loss_of_embed_is_the_formula(data):
    sides = data.draw(st.sampled_from([2, 3]))
    places = data.draw(
        st.lists(st.lists(st.integers(0, 7), min_size=sides, max_size=sides), min_size=1, max_size=7)
    )
    o = EmbedOptions(
        margin=data.draw(st.sampled_from([0.0, 0.2, 0.7])), scale=data.draw(st.sampled_from([1.0, 12.0])),
        symmetric=data.draw(st.booleans()), mask_false_negatives=data.draw(st.booleans()), matryoshka=data.draw(st.sampled_from([[], [2], [2, 3]])),
    )  # fmt: skip
    vectors = torch.randn(
        8, 5, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    ).double()
    out, batch = compared(vectors.float(), places)
    found = Embed(o, DataConfig()).loss(out, batch)
    expected = sum(embed_loss(vectors[:, :width], places, o) for width in (5, *o.matryoshka))
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_what_was_left_out_is_added_up_until_it_is_told():
    task = Embed(EmbedOptions(), DataConfig())
    vectors = torch.randn(4, 3).requires_grad_()
    for _ in range(2):
        task.loss(
            *compared(vectors, [[0, 1], [0, 1], [2, 3]])
        )  # rows 0 and 1 are the same: one partner each that is no negative
    assert task.report() == [
        "4 of 12 in-batch negatives (33.33%) were left out, since they are the text itself or belong to it"
    ]
    assert task.report() == []
    task.loss(*compared(vectors, [[0, 1], [2, 3]]))
    assert task.report() == []


def matched(options, scores):
    task = Match(MatchOptions(**options), DataConfig())
    task.fit(
        [Example(("a", "b"), score, Location("rows", n)) for n, score in enumerate(scores, 1)], lambda _: None
    )
    vectors = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    places = [[0, 1], [2, 3], [4, 5], [0, 3], [5, 5]]
    out, batch = compared(vectors, places)
    target = task.collate_target([task.encode_target(score) for score in scores])
    batch = Batch(batch.ragged, target, batch.rows)
    return float(task.loss(out, batch)) / task.loss_denominator(batch), lambda width: [
        cos(vectors[a, :width], vectors[b, :width]) for a, b in places
    ]


def test_the_losses_of_match_are_the_formulas():
    scores = [1.0, 5.0, 2.0, 2.0, 4.5]
    found, cosines = matched({"scale": 7.0, "matryoshka": [2]}, scores)

    def cosent(c):
        terms = [math.exp(7 * (c[j] - c[i])) for i in range(5) for j in range(5) if scores[i] > scores[j]]
        return math.log(1 + sum(terms))

    assert found == pytest.approx(cosent(cosines(5)) + cosent(cosines(2)), rel=1e-5)

    found, cosines = matched({"loss": "cosine", "matryoshka": [3]}, scores)
    squares = [
        sum((c - (s - 1) / 4) ** 2 for c, s in zip(cosines(width), scores, strict=True)) for width in (5, 3)
    ]
    assert found == pytest.approx(sum(squares) / 5, rel=1e-5)

    labels = [1, 0, 0, 1, 1]
    found, cosines = matched({"loss": "contrastive", "margin": 0.9}, labels)
    costs = [
        (1 - c) ** 2 if label else max(0.0, 0.9 - (1 - c)) ** 2
        for c, label in zip(cosines(5), labels, strict=True)
    ]
    assert found == pytest.approx(sum(costs) / 10, rel=1e-5)


@pytest.mark.parametrize("product", [False, True])
def test_labels_are_told_from_both_vectors(product, encoder_of):
    rows = [{**row, "label": ["no", "yes", "maybe"][n % 3]} for n, row in enumerate(PAIRS)]
    work = build(
        encoder_of("bert"),
        "match",
        rows,
        {"loss": "softmax", "concat_product": product, "embedding_dim": 6},
        dropout=0,
    )
    assert work.task.labels == ("maybe", "no", "yes")
    batch = work.dataset.get_batch(range(7), work.task.collate_target)
    with torch.no_grad():
        out = work.model(batch)
    u, v, head = out.text_vectors(0), out.text_vectors(1), work.model.head
    features = torch.cat([u, v, (u - v).abs(), u * v][: 4 if product else 3], dim=-1)
    logits = features @ head.out.weight.detach().t() + head.out.bias.detach()
    torch.testing.assert_close(out.logits, logits)
    expected = sum(
        -math.log(float(row.softmax(-1)[work.task.labels.index(r["label"])]))
        for row, r in zip(logits, rows, strict=False)
    )
    assert float(work.task.loss(out, batch)) == pytest.approx(expected, rel=1e-5)
    predictions = work.task.decode(out, batch)
    assert [p.value for p in predictions] == [work.task.labels[i] for i in logits.argmax(-1)]
    assert predictions[0].probabilities == pytest.approx(
        dict(zip(work.task.labels, logits[0].softmax(-1).tolist(), strict=True))
    )


# ---------------------------------------------------------------- what is refused


@pytest.fixture
def bench(tmp_path, monkeypatch, tiny):
    """Train on the command line in an empty folder; return exit code, what was said, and whether nothing was written."""
    monkeypatch.chdir(tmp_path)

    def run(task, files, settings, keep=False):
        for name, content in files.items():
            (tmp_path / name).write_text(
                content if isinstance(content, str) else lines_of(content), encoding="utf-8"
            )
        before = sorted(p.name for p in tmp_path.iterdir())
        given = ["data.train=t.jsonl"] if "t.jsonl" in files else []
        given += ["data.dev=d.jsonl"] if "d.jsonl" in files else []
        words = [
            "train",
            task,
            f"model={tiny}",
            "out=o",
            "train.max_steps=2",
            "train.batch_size=8",
            *given,
            *settings,
        ]
        found = CliRunner().invoke(app, words)
        return (
            found.exit_code,
            found.stderr.strip().splitlines(),
            sorted(p.name for p in tmp_path.iterdir()) == before,
        )

    return run


TEXTUAL = [{**row, "label": "ab"[n % 2]} for n, row in enumerate(PAIRS)]
REFUSED = {
    "one score": ("match", {"t.jsonl": [{**row, "label": 3} for row in PAIRS]}, [], "t.jsonl: all 24 rows have the score 3; there is nothing to learn"),
    "one label": ("match", {"t.jsonl": [{**row, "label": "x"} for row in PAIRS]}, ["options.loss=softmax"], "all rows have the label 'x'"),
    "product of another loss": ("match", {"t.jsonl": SCORED}, ["options.concat_product=true"], "options.concat_product has no effect with options.loss=cosent"),
    "contrastive on scores": ("match", {"t.jsonl": SCORED}, ["options.loss=contrastive"], "contrastive is for labels 0 and 1"),
    "widths with softmax": ("match", {"t.jsonl": TEXTUAL}, ["options.loss=softmax", "options.matryoshka=[8]"], "options.matryoshka has no effect"),
    "no number": ("match", {"t.jsonl": [*SCORED, {**PAIRS[0], "label": "many"}]}, [], "t.jsonl:25: 'label' is 'many', but 0 at t.jsonl:1"),
    "no number for a loss of scores": ("match", {"t.jsonl": [*SCORED, {**PAIRS[0], "label": "many"}]}, ["options.loss=cosine"], "t.jsonl:25: 'label' must be a number, got 'many'"),
    "not a number": ("match", {"t.jsonl": [*SCORED, {**PAIRS[0], "label": "inf"}]}, [], "t.jsonl:25: 'label' must be a finite number"),
    "an empty text": ("match", {"t.jsonl": [*SCORED, {**PAIRS[0], "text": " ", "label": 1}]}, [], "t.jsonl:25: 'text' is empty"),
    "two passes for the distance of two passes": ("match", {"t.jsonl": SCORED}, ["train.r_drop=1"], "train.r_drop: task match has no distance"),
    "r_drop of embed": ("embed", {"t.jsonl": PAIRS}, ["train.r_drop=1", "train.micro_batches=4"], "train.r_drop: task embed has no distance"),
    "unknown label in dev": (
        "match", {"t.jsonl": TEXTUAL, "d.jsonl": [*TEXTUAL, {**PAIRS[0], "label": "c"}]}, ["options.loss=softmax"],
        "d.jsonl:25: label 'c' is not among the 2 labels",
    ),
    "a score in dev among labels": (
        "match", {"t.jsonl": LABELLED, "d.jsonl": [*LABELLED, {**PAIRS[0], "label": 2}]}, [],
        "d.jsonl:25: the score is 2, where all training rows have 0 or 1",
    ),
    "dev scores all equal": (
        "match", {"t.jsonl": SCORED, "d.jsonl": [{**row, "label": 2} for row in PAIRS]}, [],
        "d.jsonl: all 24 rows have the score 2, so no correlation with it is defined",
    ),
    "dev scores all equal for embed": (
        "embed", {"t.jsonl": PAIRS, "d.jsonl": [{**row, "label": 2.5} for row in PAIRS]}, [], "d.jsonl: all 24 rows have the score 2.5",
    ),
    "the second text is empty": ("embed", {"t.jsonl": [*PAIRS, {"text": "a dog", "text_b": " "}]}, [], "t.jsonl:25: 'text_b' is empty"),
    "a negative without partner": (
        "embed", {"t.jsonl": [{"text": t["text"], "negative": t["text_b"]} for t in PAIRS]}, [], "t.jsonl:1: has a 'negative' but no 'text_b'",
    ),
    "one text": ("embed", {"t.jsonl": [{"text": "a dog", "text_b": n} for n in NOUNS]}, [], "t.jsonl: every row has the same text"),
    "labels for embed": ("embed", {"t.jsonl": PAIRS}, ["data.labels=[a,b]"], "data.labels is for labels, and embed learns from texts"),
    "pairs that do not belong together": (
        "embed", {"t.jsonl": LABELLED, "d.jsonl": LABELLED}, [],
        "t.jsonl:1: the label is 0, and embed learns from pairs that belong together; leave such rows out (data.drop_labels=[0]), or learn",
    ),
    "dev partly scored": (
        "embed", {"t.jsonl": PAIRS, "d.jsonl": [{**PAIRS[0], "label": 1}, {**PAIRS[1], "label": None}]}, [],
        "d.jsonl:2: has no score, unlike d.jsonl:1; score all rows or none",
    ),
    "metric of a search for scores": (
        "embed", {"t.jsonl": PAIRS, "d.jsonl": SCORED}, ["options.metric=ndcg@10"], "options.metric=ndcg@10: d.jsonl gives spearman, pearson",
    ),
    "margin of another loss": ("match", {"t.jsonl": LABELLED}, ["options.margin=.3"], "options.margin has no effect with options.loss=cosent"),
    "labels without softmax": ("match", {"t.jsonl": LABELLED}, ["options.loss=cosent", "data.labels=[0,1]"], "data.labels is for options.loss=softmax"),
    "several labels a row": ("match", {"t.jsonl": SCORED}, ["data.label_delimiter=pipe"], "data.label_delimiter is for several labels a row"),
    "metric of scores for softmax": (
        "match", {"t.jsonl": TEXTUAL}, ["options.loss=softmax", "options.metric=spearman"], "options.metric=spearman is not a metric of these rows",
    ),
    "metric of labels for scores": ("match", {"t.jsonl": SCORED}, ["options.metric=average_precision"], "use auto, spearman, pearson"),
    "several faults at once": (
        "match", {"t.jsonl": SCORED}, ["options.loss=contrastive", "options.concat_product=true"],
        "options.loss=contrastive is for labels 0 and 1; for scores use cosent or cosine; options.concat_product has no effect",
    ),
    "text labels with cosent": ("match", {"t.jsonl": TEXTUAL}, ["options.loss=cosent"], "t.jsonl:1: 'label' must be a number, got 'a' (and 23 more bad rows"),
    "a score is missing": ("match", {"t.jsonl": [*SCORED, {**PAIRS[0], "label": None}]}, [], "t.jsonl:25: 'label' is missing"),
    "no second text": ("match", {"t.jsonl": [{"text": "a", "label": 1}, {"text": "b", "label": 0}]}, [], "t.jsonl: no column for 'text_b'"),
    "single texts among pairs": (
        "embed", {"t.jsonl": PAIRS, "u.jsonl": SINGLE}, ["data.train=[t.jsonl,u.jsonl]"],
        "u.jsonl:1: has 1 text, t.jsonl:1 has 2 texts; rows of one split must have the same parts",
    ),
    "single texts among pairs of dev": (
        "embed", {"t.jsonl": PAIRS, "d.jsonl": HARD, "u.jsonl": SINGLE}, ["data.dev=[d.jsonl,u.jsonl]"], "u.jsonl:1: has 1 text, d.jsonl:1 has 3 texts",
    ),
    "a negative is no text": ("embed", {"t.jsonl": [*HARD, {**PAIRS[0], "negative": {"a": "b"}}]}, [], "t.jsonl:25: 'negative' must be text, got dict"),
    "a score to learn from": (
        "embed", {"t.jsonl": [*({**row, "label": 1} for row in PAIRS), {**PAIRS[1], "label": 0.5}], "d.jsonl": SCORED}, [], "t.jsonl:25: the label is 0.5",
    ),
    "scores where all labels are 1 or missing": (
        "embed", {"t.jsonl": PAIRS, "d.jsonl": [{**PAIRS[0], "label": None}, {**PAIRS[1], "label": 0.5}]}, [],
        "d.jsonl:2: has a score, unlike d.jsonl:1; score all rows or none",
    ),
    "dev labels all 0": (
        "embed", {"t.jsonl": PAIRS, "d.jsonl": [{**row, "label": 0} for row in PAIRS]}, [], "all 24 rows have the label 0; both 0 and 1 are needed",
    ),
    "metric of a search for single texts": (
        "embed", {"t.jsonl": SINGLE}, ["options.metric=ndcg@10"], "options.metric=ndcg@10: t.jsonl gives uniformity",
    ),
    "several labels a row for embed": ("embed", {"t.jsonl": PAIRS}, ["data.label_delimiter=pipe"], "data.label_delimiter is for labels"),
    "as wide as the vectors": ("match", {"t.jsonl": SCORED}, ["options.embedding_dim=8", "options.matryoshka=[4,8]"], "[8] must be less than the width"),
    "no width": ("embed", {"t.jsonl": PAIRS}, ["options.matryoshka=[0]"], "options.matryoshka: "),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_training_refuses(name, bench):
    task, files, settings, expected = REFUSED[name]
    code, said, nothing_written = bench(task, files, settings)
    assert code == 2, said
    errors = [line for line in said if line.startswith("bertune: ")]
    assert errors == said[-1:]
    assert expected in errors[0]
    assert nothing_written


def test_a_label_that_data_labels_lacks_is_named(bench):
    rows = [{**row, "label": "abc"[n % 3]} for n, row in enumerate(PAIRS)]
    code, said, nothing_written = bench(
        "match", {"t.jsonl": rows}, ["options.loss=softmax", "data.labels=[a,b]"]
    )
    assert code == 2, said
    assert "t.jsonl:3: label 'c' is not among the 2 labels" in said[-1]
    assert nothing_written


@pytest.mark.parametrize("label", [0, 1])
def test_match_refuses_to_be_scored_by_one_label(label, bench):
    code, said, nothing_written = bench(
        "match", {"t.jsonl": LABELLED, "d.jsonl": [{**row, "label": label} for row in PAIRS]}, []
    )
    assert code == 2, said
    assert f"all 24 rows have the label {label}" in said[-1]
    assert nothing_written


def test_scale_of_another_loss_is_refused(bench):
    code, said, _ = bench("match", {"t.jsonl": SCORED}, ["options.loss=cosine", "options.scale=5"])
    assert code == 2, said
    assert "options.scale has no effect with options.loss=cosine" in said[-1]


@pytest.mark.parametrize("rows", [LABELLED[:8], SCORED[:8]], ids=["labels", "scores"])
def test_too_few_rows_that_were_split_off_are_called_so(rows, bench):
    code, said, nothing_written = bench("match", {"t.jsonl": rows}, [])
    assert code == 2, said
    assert nothing_written
    assert "data.dev" in said[-1]


def test_batches_without_a_negative_are_refused(bench):
    code, said, _ = bench("embed", {"t.jsonl": HARD}, ["train.batch_size=1", "out=p"])
    assert code == 0, said  # hard negatives are enough
    code, said, _ = bench("embed", {"t.jsonl": PAIRS}, ["train.batch_size=1"])
    assert code == 2, said
    assert "train.batch_size" in said[-1]


# ---------------------------------------------------------------- what runs


def test_labels_to_be_dropped_stay_in_rows_to_be_scored(bench, tmp_path):
    files = {"t.jsonl": LABELLED, "d.jsonl": LABELLED, "e.jsonl": LABELLED[:9]}
    code, said, _ = bench("embed", files, ["data.drop_labels=[0]", "data.test=e.jsonl"])
    assert code == 0, said[-1]
    assert "data: t.jsonl: 12 rows left out, since data.drop_labels names their label" in said
    meta = json.loads((tmp_path / "o" / "bertune.json").read_text())
    assert {split: found["rows"] for split, found in meta["data"].items()} == {
        "train": 12,
        "dev": 24,
        "test": 9,
    }
    scores = json.loads((tmp_path / "o" / "scores.json").read_text())
    assert {split: scores[split]["main"] for split in ("dev", "test")} == dict.fromkeys(
        ("dev", "test"), "average_precision"
    )
    again = bertune.evaluate(tmp_path / "o", "e.jsonl").scores
    assert again.main_value == pytest.approx(scores["test"]["values"]["average_precision"], abs=1e-6)


def test_pairs_labelled_1_are_searched(bench, tmp_path):
    code, said, _ = bench("embed", {"t.jsonl": PAIRS, "d.jsonl": [{**row, "label": 1} for row in PAIRS]}, [])
    assert code == 0, said[-1]
    assert json.loads((tmp_path / "o" / "scores.json").read_text())["dev"]["main"] == "ndcg@10"


def test_pairs_labelled_1_need_no_dev_file(bench, tmp_path):
    """What is split off are pairs that belong together, so it is searched."""
    code, said, _ = bench("embed", {"t.jsonl": LABELLED}, ["data.drop_labels=[0]", "data.dev_fraction=.4"])
    assert code == 0, said[-1]
    assert json.loads((tmp_path / "o" / "scores.json").read_text())["dev"]["main"] == "ndcg@10"


@pytest.mark.parametrize("labels", [[0, 1], [0, 3, 5]])
def test_labels_of_single_texts_score_nothing(labels, bench, tmp_path):
    """The cosine of a text with itself says nothing of its label."""
    rows = [{**row, "label": labels[n % len(labels)]} for n, row in enumerate(SINGLE)]
    code, said, _ = bench("embed", {"t.jsonl": rows}, ["data.dev_fraction=.4"])
    assert code == 0, said[-1]
    assert json.loads((tmp_path / "o" / "scores.json").read_text())["dev"]["main"] == "uniformity"


def test_single_texts_may_have_labels_that_are_no_numbers(bench, tmp_path):
    code, said, _ = bench(
        "embed", {"t.jsonl": [{**row, "label": "positive"} for row in SINGLE]}, ["data.dev_fraction=.4"]
    )
    assert code == 0, said[-1]
    assert json.loads((tmp_path / "o" / "scores.json").read_text())["dev"]["main"] == "uniformity"


def test_repeats_of_dev_rows_are_not_told_of_training_rows(bench):
    repeated = [PAIRS[0], PAIRS[0], PAIRS[5]]
    code, said, _ = bench("embed", {"t.jsonl": PAIRS[::4], "d.jsonl": repeated}, [])
    assert code == 0
    assert not [line for line in said if line.startswith("data: train:")]
    code, said, _ = bench("embed", {"t.jsonl": [*repeated, PAIRS[9]], "d.jsonl": PAIRS[::4]}, ["out=p"])
    told = [line for line in said if line.startswith("data: train:")]
    assert told == [
        "data: train: 4 of 24 in-batch negatives (16.67%) were left out, since they are the text itself or belong to it"
    ]


def splits_of(settings, task="embed"):
    notes: list[str] = []
    run, made = prepare(task, settings)
    return read_splits(made, run.data, run.seed, notes.append), notes, made


def test_a_text_a_line_is_read_from_the_first_line(tmp_path):
    lines = ["天 很 好", "the dog, it is good", '"quoted" and not closed "', "a cat", "", "a cat"]
    (tmp_path / "t.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "h.txt").write_text("\n".join(["Sentence", *lines]), encoding="utf-8")
    for name in ("t.txt", "h.txt"):
        splits, notes, task = splits_of([f"data.train={tmp_path / name}", f"data.dev={tmp_path / name}"])
        assert [e.texts for e in splits.train] == [(line,) for line in lines if line]
        assert [e.location.line for e in splits.train][:2] == ([1, 2] if name == "t.txt" else [2, 3])
        assert any("1 blank lines" in note for note in notes)
        assert task.texts_per_row == 1


def test_columns_of_files_without_header_stand_for_the_first_ones(tmp_path):
    for width in (1, 2, 3):
        cells = [[r["text"], r["text_b"], str(r["label"])][:width] for r in SCORED]
        (tmp_path / f"{width}.tsv").write_text(
            "".join("\t".join(row) + "\n" for row in cells), encoding="utf-8"
        )
    names = "data.columns=[text,text_b,label]"
    for train in (1, 2):
        for dev in (1, 2, 3):
            splits, notes, task = splits_of(
                [f"data.train={tmp_path / f'{train}.tsv'}", f"data.dev={tmp_path / f'{dev}.tsv'}", names]
            )
            assert task.texts_per_row == train
            assert [e.texts for e in splits.train] == [(r["text"], r["text_b"])[:train] for r in SCORED]
            assert [e.target for e in splits.dev] == [r["label"] if dev == 3 else None for r in SCORED]
            assert [len(e.texts) for e in splits.dev] == [min(dev, 2)] * len(SCORED)
            assert any(
                "1.tsv: has 1 columns where data.columns names 3: taken as 'text'" in note for note in notes
            ) == (1 in (train, dev))
    (tmp_path / "wide.tsv").write_text("a\tb\n\nc\td\te\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"wide\.tsv:3: 3 columns where 2 are expected \(text, text_b\)"):
        splits_of([f"data.train={tmp_path / 'wide.tsv'}", names])


@pytest.mark.parametrize(
    "header",
    ["query,positive,negative", "anchor,positive,hard_negative", "query,title,neg_title", "text_b,text,Neg"],
    ids=str,
)
def test_well_known_names_of_three_texts(header, tmp_path):
    (tmp_path / "t.csv").write_text(f"{header}\na,b,c\nd,e,f\n", encoding="utf-8")
    splits, _, task = splits_of([f"data.train={tmp_path / 't.csv'}", f"data.dev={tmp_path / 't.csv'}"])
    expected = ("b", "a", "c") if header.startswith("text_b") else ("a", "b", "c")
    assert splits.train[0].texts == expected
    assert task.texts_per_row == 3


def test_numbers_of_csv_files_are_labels_too(tmp_path):
    (tmp_path / "t.csv").write_text("text,text_b,label\na,b,1\nc,d,1.0\ne,f, 1 \ng,h,\n", encoding="utf-8")
    run, task = prepare("embed", [f"data.train={tmp_path / 't.csv'}", "data.drop_labels=[1]"])
    notes: list[str] = []
    assert [e.texts for e in read_examples([str(tmp_path / "t.csv")], task, run.data, notes.append)] == [
        ("g", "h")
    ]
    assert any("3 rows left out, since data.drop_labels names their label" in note for note in notes)


# ---------------------------------------------------------------- what decides


DOUBTFUL = [
    {**row, "label": 1 - row["label"]} if n % 5 == 1 else row for n, row in enumerate(LABELLED)
]  # nothing gets them all right
DECIDED = {
    "scores": ("embed", PAIRS, SCORED, "spearman"),
    "labels": ("embed", PAIRS, LABELLED, "average_precision"),
    "search": ("embed", PAIRS, HARD, "ndcg@10"),
    "texts": ("embed", SINGLE, SINGLE[:9], "uniformity"),
    "match scores": ("match", SCORED, SCORED[:15], "spearman"),
    "match labels": ("match", LABELLED, DOUBTFUL, "average_precision"),
    "match softmax": ("match", TEXTUAL, TEXTUAL[:15], "accuracy"),
}


@pytest.mark.parametrize("name", DECIDED)
def test_the_best_checkpoint_is_kept(name, tiny, tmp_path):
    task, train, dev, main = DECIDED[name]
    (tmp_path / "t.jsonl").write_text(lines_of(train), encoding="utf-8")
    (tmp_path / "d.jsonl").write_text(lines_of(dev), encoding="utf-8")
    options = ["options.loss=softmax"] if name == "match softmax" else []
    fixed = [
        "train.max_steps=6",
        "train.eval_every=1",
        "train.batch_size=8",
        "train.learning_rate=3e-2",
        "train.schedule=constant",
        "log.every=1",
    ]
    files = [
        f"data.train={tmp_path / 't.jsonl'}",
        f"data.dev={tmp_path / 'd.jsonl'}",
        f"model={tiny}",
        f"out={tmp_path / 'o'}",
    ]
    result = bertune.train(task, [*files, *fixed, *options, "train.precision=fp32"], quiet=True)

    def refuse(constant):
        raise AssertionError(constant)

    history = [
        json.loads(line, parse_constant=refuse)
        for line in (result.folder / "history.jsonl").read_text().splitlines()
    ]
    found = [line[main] for line in history if line["event"] == "dev"]
    assert len(found) == 6
    assert len(set(found)) > 1
    best = (min if main == "uniformity" else max)(found)
    scores = result.scores["dev"]
    assert (scores.main_metric, scores.higher_is_better) == (main, main != "uniformity")
    assert scores.main_value == pytest.approx(best, abs=1e-9)
    again = bertune.evaluate(result.folder, str(tmp_path / "d.jsonl"), precision="fp32").scores
    assert again.main_value == pytest.approx(best, abs=1e-5)


def trained(tiny, folder, task, train, *settings):
    (folder / "t.jsonl").write_text(lines_of(train), encoding="utf-8")
    files = [
        f"data.train={folder / 't.jsonl'}",
        f"data.dev={folder / 't.jsonl'}",
        f"model={tiny}",
        f"out={folder / 'o'}",
    ]
    common = ["train.max_steps=3", "train.learning_rate=1e-3", "train.batch_size=8", *settings]
    return bertune.train(task, [*files, *common], quiet=True).folder


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    return bertune.load(trained(tiny, tmp_path_factory.mktemp("vectors"), "embed", PAIRS), precision="fp32")


def test_uniformity_is_that_of_the_vectors(model, tmp_path):
    (tmp_path / "d.jsonl").write_text(lines_of(SINGLE[:7]), encoding="utf-8")
    examples = read_examples([str(tmp_path / "d.jsonl")], model.task, DataConfig(), lambda _: None)
    predictions = model.predict_examples(examples).predictions
    x = model.encode([e.texts[0] for e in examples], normalize_embeddings=True).astype(float)
    terms = [math.exp(-2 * float(((x[i] - x[j]) ** 2).sum())) for i in range(7) for j in range(i)]
    scores = model.task.score(predictions, examples)
    assert scores.values == {"uniformity": pytest.approx(math.log(sum(terms) / len(terms)), abs=1e-5)}


def test_a_search_is_that_of_brute_force(model):
    """By every different query among all other texts; one that is a document too does not find itself."""
    rows = [
        *PAIRS[:12],
        {**PAIRS[0], "text_b": "one more"},
        {"text": PAIRS[3]["text_b"], "text_b": PAIRS[4]["text_b"]},
    ]
    examples = examples_of(model.task, rows)
    scores = model.task.score(model.predict_examples(examples).predictions, examples)
    documents = list(dict.fromkeys(row["text_b"] for row in rows))
    assert rows[-1]["text"] in documents
    found = {name: [] for name in scores.values}
    for query in dict.fromkeys(row["text"] for row in rows):
        wanted = {row["text_b"] for row in rows if row["text"] == query}
        others = [d for d in documents if d != query]
        cosines = model.similarity(model.encode(query), model.encode(others))[0].tolist()
        order = [others[n] for n in sorted(range(len(others)), key=lambda n: -cosines[n])][:10]
        hits = [d in wanted for d in order]
        most = sum(1 / math.log2(2 + n) for n in range(len(wanted)))
        found["ndcg@10"].append(sum(hit / math.log2(2 + n) for n, hit in enumerate(hits)) / most)
        found["mrr@10"].append(next((1 / (1 + n) for n, hit in enumerate(hits) if hit), 0.0))
        found["accuracy@1"].append(float(hits[0]))
        for k in (1, 5, 10):
            found[f"recall@{k}"].append(sum(hits[:k]) / len(wanted))
    assert scores.values == pytest.approx(
        {name: float(np.mean(values)) for name, values in found.items()}, abs=1e-6
    )
    assert 0 < scores.values["ndcg@10"] < 1
    low, high = scores.intervals["ndcg@10"]
    assert low <= scores.main_value <= high


def test_hard_negatives_are_searched_too(model):
    rows = [
        {"text": "the dog", "text_b": "a big red house", "negative": "the dog is"},
        {"text": "the cat", "text_b": "the cat is", "negative": "book"},
    ]
    examples = examples_of(model.task, rows)
    scores = model.task.score(model.predict_examples(examples).predictions, examples)
    documents = ["a big red house", "the dog is", "the cat is", "book"]
    firsts = []
    for row in rows:
        cosines = model.similarity(model.encode([row["text"]]), model.encode(documents))[0].tolist()
        own = cosines[documents.index(row["text_b"])]
        firsts.append(1 / (1 + sum(c > own for c in cosines)))
    assert firsts[0] < 1
    assert scores.values["mrr@10"] == pytest.approx(np.mean(firsts))


def test_a_pair_of_one_text_is_found(model):
    """Whatever a query is, the text that belongs to it counts as found where it stands first."""
    examples = examples_of(model.task, [{"text": n, "text_b": n} for n in NOUNS])
    assert model.task.score(model.predict_examples(examples).predictions, examples).values["ndcg@10"] > 0


# ---------------------------------------------------------------- vectors


def counted(model, monkeypatch):
    seen: list[int] = []
    vectors = model.model.vectors
    monkeypatch.setattr(
        model.model, "vectors", lambda ragged: seen.append(len(ragged.lengths)) or vectors(ragged)
    )
    return seen


VARIED = [
    "the dog is good",
    "a cat",
    "the dog is good",
    "大 人 and a very big house was not red",
    "a",
    "good " * 70,
    "红。",
]


def test_vectors_do_not_depend_on_the_other_texts(model):
    together = model.encode(VARIED)
    assert together.shape == (len(VARIED), 32)
    assert together.dtype == np.float32
    assert np.array_equal(together[0], together[2])
    for text, vector in zip(VARIED, together, strict=True):
        alone = model.encode(text)
        assert alone.shape == (32,)
        np.testing.assert_allclose(alone, vector, atol=1e-5)
    np.testing.assert_allclose(model.encode(VARIED[::-1])[::-1], together, atol=1e-5)
    alike = model.similarity(together, together).numpy()
    assert alike[~np.eye(len(VARIED), dtype=bool)].min() < 0.99
    cosines = [[float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for b in together] for a in together]
    np.testing.assert_allclose(alike, cosines, atol=1e-5)
    np.testing.assert_allclose(
        model.similarity_pairwise(together, together[::-1].copy()), alike[:, ::-1].diagonal(), atol=1e-6
    )


def test_forms_of_vectors(model):
    plain = model.encode(VARIED)
    assert np.array_equal(model.encode(VARIED, precision="float16"), plain.astype(np.float16))
    small = model.encode(VARIED, precision="int8")
    assert small.dtype == np.int8
    assert (np.abs(small).max(1) == 127).all()
    np.testing.assert_allclose(
        small / 127 * np.abs(plain).max(1, keepdims=True), plain, atol=np.abs(plain).max() / 250
    )
    signs = model.encode(VARIED, precision="ubinary")
    assert (signs.dtype, signs.shape) == (np.uint8, (len(VARIED), 4))
    assert np.array_equal(np.unpackbits(signs, axis=1), plain > 0)
    signed = model.encode(VARIED, precision="binary")
    assert signed.dtype == np.int8
    assert np.array_equal(signed.astype(int), signs.astype(int) - 128)
    assert np.array_equal(model.encode(VARIED, truncate_dim=8), plain[:, :8])
    unit = model.encode(VARIED, normalize_embeddings=True)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    tensor = model.encode(VARIED, convert_to_tensor=True, batch_size=2, show_progress_bar=True)
    assert torch.equal(tensor, torch.from_numpy(plain))
    assert (
        model.get_embedding_dimension(),
        model.get_sentence_embedding_dimension(),
        model.max_seq_length,
    ) == (32, 32, 64)
    with pytest.raises(ConfigError, match="'int7' is none of float32, float16, int8, binary"):
        model.encode(["a"], precision="int7")
    with pytest.raises(ConfigError, match="no prompt 'query'; this model has none"):
        model.encode(["a"], prompt_name="query")
    with pytest.raises(DataError, match="texts:1: predict compares two texts, and this row has one"):
        model.predict(["a dog"])


def test_each_text_goes_through_the_model_once(model, monkeypatch):
    seen = counted(model, monkeypatch)
    texts = ["the dog", "a cat", "the dog", "red", "a cat", "the dog"]
    vectors = model.encode(texts)
    assert sum(seen) == 3
    assert np.array_equal(vectors[[0, 1, 0, 3, 1, 0]], vectors)
    seen.clear()
    model.predict([(a, b) for a in texts for b in texts])
    assert sum(seen) == 3


def test_many_pairs_are_compared_in_their_order(model, monkeypatch):
    """More than are compared at once."""
    seen = counted(model, monkeypatch)
    texts = [row["text"] for row in PAIRS] + [row["text_b"] for row in PAIRS]
    random = np.random.default_rng(0)
    pairs = [(texts[a], texts[b]) for a, b in random.integers(0, len(texts), (2500, 2))]
    found = [p.value for p in model.predict(pairs)]
    assert sum(seen) == len(set(texts))
    expected = model.similarity_pairwise(
        model.encode([a for a, _ in pairs]), model.encode([b for _, b in pairs])
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert max(found) - min(found) > 0.05


def test_the_loss_of_rows_to_be_scored_is_that_of_training(model):
    examples = examples_of(model.task, HARD)
    loss = model.predict_examples(examples).loss
    rows = EncodedDataset(model.task.encode(examples, model.tokenizer))
    batch = rows.get_batch(range(len(HARD)), model.task.collate_target)
    with torch.no_grad():
        assert loss == pytest.approx(float(model.task.loss(model.model(batch), batch)) / len(HARD), rel=1e-5)
    assert math.isnan(model.predict_examples(examples_of(model.task, SCORED)).loss)


def test_odd_lists_of_texts(model):
    one, two = model.encode(["the dog", "a cat"])
    assert np.array_equal(model.encode(text for text in ("the dog", "a cat")), np.stack([one, two]))
    assert np.array_equal(model.encode(np.array(["the dog", "a cat"])), np.stack([one, two]))
    for precision, shape in (
        ("float32", (0, 32)),
        ("float16", (0, 32)),
        ("int8", (0, 32)),
        ("binary", (0, 4)),
    ):
        assert model.encode([], precision=precision).shape == shape
    assert model.encode("the dog", convert_to_tensor=True).shape == (32,)
    assert model.similarity(one, np.stack([one, two])).shape == (1, 2)
    for wrong in ([None], [("a", "b")], ["a", "\n\t"], ["　"]):
        with pytest.raises(DataError, match=rf"texts:{len(wrong)}: expected a text that is not empty"):
            model.encode(wrong)
    assert np.isfinite(model.encode(["\U0001f600", "\x00", "[CLS]", "é " * 500])).all()
    assert model.num_truncated_rows == 1


def test_half_a_letter_is_no_text(model):
    with pytest.raises(DataError, match=r"texts:2: .*half a character"):
        model.encode(["a", "b \ud83d"])


def test_no_features_at_all_are_refused(model):
    for width in (0, -1, 33):
        with pytest.raises(ConfigError, match=f"truncate_dim: {width} is not from 1 to 32"):
            model.encode(["a"], truncate_dim=width)


def test_lengths_are_brought_to_1_after_the_cut(model):
    cut = model.encode(["the dog", "a cat"], truncate_dim=6, normalize_embeddings=True)
    plain = model.encode(["the dog", "a cat"])[:, :6]
    assert np.array_equal(model.encode(["the dog", "a cat"], truncate_dim=6), plain)
    np.testing.assert_allclose(cut, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(
        model.encode(["the dog"], truncate_dim=9, precision="ubinary"),
        np.packbits(model.encode(["the dog"])[:, :9] > 0, axis=1),
    )


def test_what_a_folder_says_of_prompts_and_width_can_be_overruled(model, monkeypatch):
    monkeypatch.setattr(
        model, "prompts", {"corpus": "big ", "passage": "small ", "other": "red ", "nothing": ""}
    )
    monkeypatch.setattr(model, "default_prompt_name", "other")
    monkeypatch.setattr(model, "truncate_dim", 7)

    def same(found, text):
        np.testing.assert_allclose(found, model.encode(text, prompt=""), atol=1e-6)

    same(model.encode("dog"), "red dog")
    same(model.encode("dog", prompt_name="nothing"), "dog")
    same(model.encode("dog", "passage"), "small dog")
    same(model.encode("dog", prompt_name="passage", prompt="a "), "a dog")
    same(model.encode_document("dog"), "small dog")
    same(model.encode_query("dog"), "red dog")
    same(model.encode_document("dog", prompt="not "), "not dog")
    assert model.encode("dog").shape == (7,)
    assert model.encode("dog", truncate_dim=32).shape == (32,)
    assert np.array_equal(model.encode("dog"), model.encode("dog", truncate_dim=32)[:7])
    with pytest.raises(
        ConfigError, match="no prompt 'query'; this model has corpus, passage, other, nothing"
    ):
        model.encode("dog", prompt_name="query")


def test_softmax_pairs_have_vectors_too(tiny, tmp_path):
    found = bertune.load(
        trained(tiny, tmp_path, "match", TEXTUAL, "options.loss=softmax", "options.embedding_dim=8"),
        precision="fp32",
    )
    assert found.encode(["a dog", "the cat"]).shape == (2, 8)
    assert {p.value for p in found.predict([(r["text"], r["text_b"]) for r in PAIRS])} <= {"a", "b"}


def test_the_layer_of_labels_reads_vectors_before_they_are_normalized(tiny, tmp_path):
    made = []
    for normalize in ("true", "false"):
        (tmp_path / normalize).mkdir()
        settings = [f"options.normalize={normalize}", "train.precision=fp32", "train.dropout=0"]
        folder = trained(tiny, tmp_path / normalize, "match", TEXTUAL, "options.loss=softmax", *settings)
        made.append(bertune.load(folder, precision="fp32"))
    normalized, plain = made
    pairs = [(r["text"], r["text_b"]) for r in PAIRS]
    assert [p.probabilities for p in normalized.predict(pairs)] == [
        p.probabilities for p in plain.predict(pairs)
    ]
    vectors = normalized.encode(["a dog", "the cat"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert np.abs(np.linalg.norm(plain.encode(["a dog", "the cat"]), axis=1) - 1).min() > 0.1


def test_folders_of_early_versions_read_labels_from_normalized_vectors():
    task = Match(MatchOptions(loss="softmax", normalize=True), DataConfig())
    state = {**task.state(), "labels": ["a", "b"]}
    del state["labels_from_normalized"]
    task.load_state(state)
    assert task.build_head(4, ()).labels_from_normalized
    task.load_state({**state, "labels_from_normalized": False})
    assert not task.build_head(4, ()).labels_from_normalized


def test_normalized_vectors_have_the_same_cosines(tiny, tmp_path):
    made = []
    for normalize in ("true", "false"):
        (tmp_path / normalize).mkdir()
        folder = trained(
            tiny,
            tmp_path / normalize,
            "embed",
            PAIRS,
            f"options.normalize={normalize}",
            "train.precision=fp32",
            "train.dropout=0",
        )
        made.append(bertune.load(folder, precision="fp32"))
    texts = [row["text"] for row in PAIRS]
    unit, plain = (m.encode(texts) for m in made)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    assert abs(np.linalg.norm(plain, axis=1) - 1).min() > 0.1
    np.testing.assert_allclose(made[0].similarity(unit, unit), made[1].similarity(plain, plain), atol=1e-4)


# ---------------------------------------------------------------- encoders


def ragged_of(folder, encoder, texts):
    pieces = load_tokenizer(folder, encoder.max_positions, DataConfig()).encode([(t,) for t in texts])
    return EncodedDataset([EncodedExample((p,)) for p in pieces]).gather_texts(range(len(texts)))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "albert", "mpnet", "deberta-v2"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "pooler", "first_last_avg"])
def test_pooling_is_that_of_transformers(pooling, kind, encoder_of):
    from transformers import AutoModel

    _, task = prepare("embed", [f"options.pooling={pooling}", f"model={encoder_of(kind)}"])
    encoder, report = load_encoder(encoder_of(kind))
    texts = ["the dog", "a very big red house is not small and not good", "天"]
    ragged = ragged_of(encoder_of(kind), encoder, texts)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        head = task.head(encoder, report.pooler)
        found = Model(encoder, head).eval().vectors(ragged)
        theirs = AutoModel.from_pretrained(str(encoder_of(kind))).eval()
        for start, stop, vector in zip(ragged.offsets[:-1], ragged.offsets[1:], found, strict=True):
            out = theirs(input_ids=ragged.input_ids[None, start:stop], output_hidden_states=True)
            last, first = out.hidden_states[-1][0], out.hidden_states[1][0]
            expected = {
                "mean": lambda x=last: x.mean(0),
                "cls": lambda x=last: x[0],
                "max": lambda x=last: x.amax(0),
                "pooler": lambda x=last: torch.tanh(head.dense[0](x[0])),
                "first_last_avg": lambda x=last, y=first: ((x + y) / 2).mean(0),
            }[pooling]()
            torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_a_pretrained_pooler_is_taken_over(kind, tmp_path):
    from transformers import AutoConfig, AutoModel

    folder = make_encoder(tmp_path / kind, kind)
    theirs = AutoModel.from_config(AutoConfig.from_pretrained(str(folder))).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(folder)
    _, task = prepare("match", ["options.pooling=pooler", f"model={folder}"])
    encoder, report = load_encoder(folder)
    ragged = ragged_of(folder, encoder, ["the dog is good", "a cat"])
    with torch.no_grad():
        found = Model(encoder, task.head(encoder, report.pooler)).eval().vectors(ragged)
        for start, stop, vector in zip(ragged.offsets[:-1], ragged.offsets[1:], found, strict=True):
            torch.testing.assert_close(
                vector,
                theirs(input_ids=ragged.input_ids[None, start:stop]).pooler_output[0],
                atol=1e-5,
                rtol=1e-4,
            )


@pytest.mark.parametrize("kind", [*KINDS, "modernbert"])
def test_every_dropout_of_an_encoder_is_set(kind, encoder_of, tmp_path):
    """Those of attention and of hidden states: config.json says .1 for all of them, but for albert's."""
    if kind == "modernbert":  # which keeps that of attention as a number
        rates = dict.fromkeys(("attention_dropout", "embedding_dropout", "mlp_dropout"), 0.1)
        folder = make_encoder(tmp_path / kind, kind, **rates)
    else:
        folder = encoder_of(kind)
    encoder, _ = load_encoder(folder)
    ragged = ragged_of(folder, encoder, ["the dog is good and the cat is bad", "a"])
    with torch.no_grad():
        still = encoder.eval()(ragged)
        torch.manual_seed(0)
        distances: dict[float | None, float] = {}
        for rate in (None, 0.0, 0.1, 0.5):
            if rate is not None:
                encoder.set_dropout(rate)
            distances[rate] = float(
                np.mean([float((encoder.train()(ragged) - still).norm()) for _ in range(20)])
            )
        assert distances[0.0] == 0
        if kind != "albert":  # whose config.json says 0
            assert distances[0.1] == pytest.approx(distances[None], rel=0.3)
        assert distances[0.5] > 1.5 * distances[0.1]
        assert torch.equal(encoder.eval()(ragged), still)


@pytest.mark.parametrize("kind", ["bert", "albert", "mpnet"])
def test_dropout_of_a_run(kind, encoder_of, tmp_path):
    """The loss of the first step is that of the weights as they came where nothing is dropped, and another one elsewhere."""
    losses = []
    for rate, fast in (("0", "true"), ("0", "false"), (".3", "true"), (".3", "false"), ("null", "true")):
        place = tmp_path / f"{rate}{fast}"
        place.mkdir()
        rows = [PAIRS[0], PAIRS[5], PAIRS[10]]
        more = [
            "train.max_steps=1",
            "log.every=1",
            "train.precision=fp32",
            f"train.dropout={rate}",
            f"train.fast_dropout={fast}",
        ]
        history = trained(encoder_of(kind), place, "embed", rows, *more) / "history.jsonl"
        losses.append(json.loads(history.read_text().splitlines()[0])["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert all(
        abs(loss - losses[0]) > 1e-3 for loss in losses[2 : 4 if kind == "albert" else 5]
    )  # albert's own config.json says 0
