"""Tasks match and embed: losses, micro-batches that change nothing, what is refused, scores, and vectors."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch

import bertune
from bertune import run as story
from bertune.data.batching import EncodedRows
from bertune.engine import loop
from bertune.engine.state import Randomness
from bertune.errors import BertuneError, ConfigError, DataError
from bertune.model import Model
from bertune.model.encoders import read_encoder
from bertune.model.tokenizer import load_tokenizer
from bertune.tasks.reading import read_examples
from bertune.types import Numerics

NOUNS = ["dog", "cat", "tree", "house", "car", "book"]
WORDS = ["good", "bad", "fine", "red", "big"]


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


PAIRS = [{"text": f"the {n} is {a}", "text_b": f"a {a} {n}"} for n in NOUNS for a in WORDS]
HARD = [{**row, "negative": f"a {a} house and not"} for row, a in zip(PAIRS, WORDS * 6, strict=True)]
SINGLE = [{"text": row["text"]} for row in PAIRS]
SCORED = [{**row, "label": n % 7} for n, row in enumerate(PAIRS)]
LABELLED = [{**row, "label": n % 2} for n, row in enumerate(PAIRS)]


@pytest.fixture
def written(tmp_path):
    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text(rows if isinstance(rows, str) else lines_of(rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def fit_of(tiny, written):
    """Return a run of training before its first step, in fp32."""

    def make(task_name, rows, *settings):
        from accelerate import Accelerator

        file = written(rows)
        run, task = story.prepare(task_name, [f"data.train={file}", f"model={tiny}", "train.batch_size=12", *settings])
        examples = read_examples([str(file)], task, run.data, lambda _: None)
        task.fit(examples, lambda _: None)
        loop.seed_everything(0)
        encoder, report = read_encoder(tiny)
        if run.train.dropout is not None:
            encoder.set_dropout(run.train.dropout)
        encoder.compute_in(Numerics("fp32", run.train.fast_dropout))
        tokenizer = load_tokenizer(tiny, encoder.longest, run.data)
        model = Model(encoder, task.head(encoder, report.pooler))
        return loop.Fit(model.train(), task, EncodedRows(task.encode(examples, tokenizer)), run, Accelerator(cpu=True))

    return make


def gradients(work, rows):
    """The gradient of one step, without the step."""
    work._optimizer.step = lambda: None
    work.config.__dict__["max_grad_norm"] = 0
    work.step(rows)
    return {n: p.grad.clone() for n, p in work.model.named_parameters() if p.grad is not None}, float(work.state.loss)


JOINT = {
    "pairs": ("embed", PAIRS, []),
    "hard negatives": ("embed", HARD, ["options.symmetric=true"]),
    "simcse": ("embed", SINGLE, ["options.pooling=cls"]),
    "matryoshka": ("embed", PAIRS, ["options.matryoshka=[8,16]", "options.size=24"]),
    "cosent": ("match", SCORED, ["options.pooling=cls"]),
}


@pytest.mark.parametrize("cut", ["train.accumulate=3", "train.max_tokens=20"])
@pytest.mark.parametrize("name", JOINT)
def test_micro_batches_change_nothing(fit_of, name, cut):
    task, rows, settings = JOINT[name]
    places = list(range(0, 24, 2))
    whole, loss = gradients(fit_of(task, rows, *settings, "train.dropout=0", "train.max_tokens=null"), places)
    parts, loss_of_parts = gradients(fit_of(task, rows, *settings, "train.dropout=0", cut), places)
    assert loss_of_parts == pytest.approx(loss, abs=1e-5)
    assert whole.keys() == parts.keys()
    largest = max(float(g.abs().max()) for g in whole.values())
    assert largest > 1e-4
    for parameter, gradient in whole.items():
        torch.testing.assert_close(
            parts[parameter], gradient, atol=1e-6 * max(1, largest), rtol=1e-4, msg=lambda m, p=parameter: f"{p}: {m}"
        )


@pytest.mark.parametrize("fast", ["true", "false"])
def test_both_passes_have_the_same_dropout(fit_of, fast):
    """The gradient is that of one graph in which the parts are encoded once, in the same order from the same random state."""
    places, settings = list(range(12)), ["train.dropout=0.3", f"train.fast_dropout={fast}", "train.accumulate=3"]
    cached, loss = gradients(fit_of("embed", PAIRS, *settings), places)
    after = Randomness.now(torch.device("cpu"))
    work = fit_of("embed", PAIRS, *settings)
    batch = work.rows.batch(places, work.task.collate_target)
    parts = [batch.ragged.part(cut[0], cut[-1] + 1) for cut in work._cuts(batch)]
    assert len(parts) == 3
    vectors = torch.cat([work.model.vectors(part) for part in parts])
    direct = work.task.loss(work.model.compare(vectors, batch.sides), batch)
    (direct / 12).backward()
    assert loss == pytest.approx(direct.item(), rel=1e-6)
    for name, parameter in work.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(cached[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)
    now = Randomness.now(torch.device("cpu"))
    assert torch.equal(now.torch_state, after.torch_state)
    assert now.bytes_state == after.bytes_state


# ---------------------------------------------------------------- the loss of embed


def plain_loss(a, candidates, margin, scale, skip=()):
    """Sum over rows of the cross-entropy, number by number; `skip` are places (i, j) that take no part."""
    total = 0.0
    for i in range(len(a)):
        logits = {}
        for j in range(len(candidates)):
            if (i, j) not in skip:
                cos = float(a[i] @ candidates[j] / (a[i].norm() * candidates[j].norm()))
                logits[j] = scale * (cos - (margin if i == j else 0.0))
        total += math.log(sum(math.exp(x) for x in logits.values())) - logits[i]
    return total


def test_in_batch_negatives_are_the_formula(fit_of):
    work = fit_of("embed", HARD, "train.dropout=0", "options.margin=0.3", "options.scale=10")
    batch = work.rows.batch(range(6), work.task.collate_target)  # five rows of a dog, one of a cat
    out = work.model(batch)
    a, b, n = (out.side(k).detach().double() for k in range(3))
    assert len(out.vectors) < 18  # the negatives of rows 0 and 5 are one text
    found = float(work.task.loss(out, batch).detach())
    assert found == pytest.approx(plain_loss(a, torch.cat([b, n]), 0.3, 10), rel=1e-5)


def test_what_belongs_to_a_text_is_no_negative_of_it(fit_of):
    rows = [
        {"text": "the dog", "text_b": "a dog"},
        {"text": "the cat", "text_b": "a dog"},  # the partner of row 0: no negative of it, nor the other way round
        {"text": "the dog", "text_b": "good dog"},  # of the same text as row 0
        {"text": "a tree", "text_b": "the cat"},  # row 1's text itself
    ]
    skip = {(0, 1), (1, 0), (0, 2), (2, 0), (2, 1), (1, 3)}
    for mask, left_out in (("true", skip), ("false", set())):
        work = fit_of("embed", rows, "train.dropout=0", f"options.mask_repeats={mask}")
        batch = work.rows.batch(range(4), work.task.collate_target)
        out = work.model(batch)
        a, b = (out.side(k).detach().double() for k in range(2))
        assert float(work.task.loss(out, batch).detach()) == pytest.approx(plain_loss(a, b, 0.2, 20, left_out), rel=1e-5)
        said = work.task.report()
        assert said == ([] if mask == "false" else said)
        if mask == "true":
            assert said[0].startswith("6 of 12 in-batch negatives")
        assert work.task.report() == []


def test_simcse_gives_a_text_two_dropouts(fit_of):
    for rate, same in (("0", True), ("0.2", False)):
        work = fit_of("embed", SINGLE, f"train.dropout={rate}")
        out = work.model(work.rows.batch(range(4), work.task.collate_target))
        assert torch.equal(out.side(0), out.side(1)) == same


# ---------------------------------------------------------------- what is refused, and what is read


def refusal(task, tiny, *settings):
    with pytest.raises(BertuneError) as caught:
        bertune.train(task, [f"model={tiny}", "train.max_steps=1", *settings], quiet=True)
    return str(caught.value)


REFUSED = {
    "one score": ("match", [{**r, "label": 3} for r in PAIRS], [], "all 30 rows have the score 3; there is nothing to learn"),
    "no number": ("match", [*SCORED, {"text": "a", "text_b": "b", "label": "many"}], [], r"rows.jsonl:31: 'label' must be a number, got 'many'"),
    "contrastive on scores": ("match", SCORED, ["options.loss=contrastive"], "contrastive is for labels 0 and 1"),
    "product without softmax": ("match", SCORED, ["options.product=true"], "options.product has no part in options.loss=cosent"),
    "metric of others": ("match", SCORED, ["options.metric=accuracy"], "options.metric=accuracy is no figure of these rows; use auto, spearman"),
    "matryoshka with softmax": ("match", LABELLED, ["options.loss=softmax", "options.matryoshka=[8]"], "matryoshka has no part"),
    "one label": ("match", [{**r, "label": "x"} for r in PAIRS], ["options.loss=softmax"], "all rows have the label 'x'"),
    "empty side": ("embed", [*PAIRS, {"text": "a dog", "text_b": " "}], [], r"rows.jsonl:31: 'text_b' is empty"),
    "empty side of match": ("match", [*SCORED, {"text": "", "text_b": "a", "label": 1}], [], r"rows.jsonl:31: 'text' is empty"),
    "labels to learn from": ("embed", LABELLED, [], r"rows.jsonl:1: the label is 0.*data.drop_labels=\[0\].*task match"),
    "negative alone": ("embed", [{"text": "a dog", "negative": "a cat"}, {"text": "a", "negative": "b"}], [], "'negative' but no 'text_b'"),
    "one text": ("embed", [{"text": "a dog", "text_b": n} for n in NOUNS], [], "every row has the same text"),
    "too wide": ("embed", PAIRS, ["options.matryoshka=[32]"], r"\[32\] must be less than the width of the vectors, 32"),
    "data.labels": ("embed", PAIRS, ["data.labels=[a,b]"], "data.labels is for labels"),
    "r_drop": ("embed", PAIRS, ["train.r_drop=1"], "train.r_drop"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_training_rows_that_cannot_be_used(name, tiny, written, tmp_path):
    task, rows, settings, expected = REFUSED[name]
    file = written(rows)
    message = refusal(task, tiny, f"data.train={file}", f"data.dev={file}", f"out={tmp_path / 'out'}", *settings)
    assert re.search(expected, message), message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


REFUSED_DEV = {
    "unknown label": ("match", [{**r, "label": "ab"[n % 2]} for n, r in enumerate(PAIRS)], [{"text": "a", "text_b": "b", "label": "c"}],
                      ["options.loss=softmax"], r"dev.jsonl:1: label 'c' is not among the 2 labels"),
    "score among labels": ("match", LABELLED, [{"text": "a", "text_b": "b", "label": 2}], [], "dev.jsonl:1: the score is 2, where all training rows"),
    "equal scores": ("match", SCORED, [{"text": "a", "text_b": "b", "label": 2}] * 3, [], "all 3 rows have the score 2, so no correlation"),
    "equal scores for embed": ("embed", PAIRS, [{"text": "a", "text_b": "b", "label": 2.5}] * 3, [], "all 3 rows have the score 2.5, so no"),
    "labels of one kind": ("embed", PAIRS, [{"text": "a", "text_b": "b", "label": 1}] * 3, [], "all 3 rows have the label 1; both 0 and 1"),
    "half scored": ("embed", PAIRS, [{"text": "a", "text_b": "b", "label": 1}, {"text": "a", "text_b": "b", "label": None}], [],
                    "dev.jsonl:2: has no score, unlike .*dev.jsonl:1"),
    "metric of others": ("embed", PAIRS, SCORED, ["options.metric=ndcg@10"], r"options.metric=ndcg@10: .*dev.jsonl gives spearman, pearson"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_DEV)
def test_dev_rows_that_cannot_be_scored(name, tiny, written, tmp_path):
    task, rows, dev, settings, expected = REFUSED_DEV[name]
    files = f"data.train={written(rows)}", f"data.dev={written(dev, 'dev.jsonl')}"
    message = refusal(task, tiny, *files, f"out={tmp_path / 'out'}", *settings)
    assert re.search(expected, message), message
    assert not (tmp_path / "out").exists()


def trained(tiny, tmp_path, task, *settings):
    common = [f"model={tiny}", f"out={tmp_path / 'out'}", "train.batch_size=8", "train.learning_rate=1e-3"]
    return bertune.train(task, [*common, *settings], quiet=True)


def test_labelled_pairs_are_learnt_from_without_those_labelled_0(tiny, written, tmp_path):
    file = written(LABELLED)
    result = trained(tiny, tmp_path, "embed", f"data.train={file}", f"data.dev={file}", "data.drop_labels=[0]", "train.max_steps=2")
    meta = json.loads((result.folder / "bertune.json").read_text())
    assert {name: split["rows"] for name, split in meta["data"].items()} == {"train": 15, "dev": 30}
    assert result.scores["dev"].main == "average_precision"
    line = (result.folder / "history.jsonl").read_text().splitlines()[0]
    assert math.isfinite(json.loads(line)["loss"])


def test_a_text_a_line_needs_no_header(tiny, written, tmp_path):
    file = written("".join(row["text"] + "\n" for row in SINGLE), "texts.txt")
    result = trained(tiny, tmp_path, "embed", f"data.train={file}", f"data.dev={written(SCORED)}", "train.max_steps=1")
    assert json.loads((result.folder / "bertune.json").read_text())["data"]["train"]["rows"] == len(SINGLE)
    assert result.scores["dev"].main == "spearman"


def test_files_without_header_may_be_of_different_width(tiny, written, tmp_path):
    texts = written("".join(row["text"] + "\n" for row in SINGLE), "train.tsv")
    dev = written("".join(f"{r['text']}\t{r['text_b']}\t{r['label']}\n" for r in SCORED), "dev.tsv")
    settings = [f"data.train={texts}", f"data.dev={dev}", "data.columns=[text,text_b,label]", "train.max_steps=1"]
    result = trained(tiny, tmp_path, "embed", *settings)
    rows = json.loads((result.folder / "bertune.json").read_text())["data"]
    assert (rows["train"]["rows"], rows["dev"]["rows"]) == (len(SINGLE), len(SCORED))


# ---------------------------------------------------------------- scores


def test_a_search_is_scored_by_brute_force(tiny, written, tmp_path):
    rows = [*PAIRS[:10], {"text": PAIRS[0]["text"], "text_b": "one more"}, {"text": "a good dog", "text_b": "red"}]
    file = written(rows)
    result = trained(tiny, tmp_path, "embed", f"data.train={file}", f"data.dev={file}", "train.max_steps=2", "train.precision=fp32")
    model = bertune.load(result.folder, precision="fp32")
    documents = list(dict.fromkeys(r["text_b"] for r in rows))
    relevant = {}
    for row in rows:
        relevant.setdefault(row["text"], set()).add(row["text_b"])
    gains, firsts = [], []
    for query, wanted in relevant.items():
        others = [d for d in documents if d != query]  # "a good dog" is a document too, and does not find itself
        cosines = model.similarity(model.encode([query]), model.encode(others))[0].tolist()
        order = [others[i] for i in sorted(range(len(others)), key=lambda i: -cosines[i])][:10]
        gain = sum(1 / math.log2(2 + place) for place, d in enumerate(order) if d in wanted)
        gains.append(gain / sum(1 / math.log2(2 + place) for place in range(len(wanted))))
        firsts.append(next((1 / (1 + place) for place, d in enumerate(order) if d in wanted), 0.0))
    scores, loss, _ = bertune.evaluate(result.folder, str(file), precision="fp32")
    assert scores.values["ndcg@10"] == pytest.approx(np.mean(gains), abs=1e-6)
    assert scores.values["mrr@10"] == pytest.approx(np.mean(firsts), abs=1e-6)
    assert math.isfinite(loss)


def test_single_texts_without_dev_file_are_scored_by_uniformity(tiny, written, tmp_path):
    result = trained(tiny, tmp_path, "embed", f"data.train={written(SINGLE)}", "data.dev_share=0.3", "train.max_steps=4")
    scores = result.scores["dev"]
    assert (scores.main, scores.higher_is_better) == ("uniformity", False)
    vectors = bertune.load(result.folder, precision="fp32").encode([r["text"] for r in SINGLE], normalize_embeddings=True)
    distances = [np.exp(-2 * np.sum((a - b) ** 2)) for i, a in enumerate(vectors) for b in vectors[i + 1 :]]
    assert np.log(np.mean(distances)) < 0 >= scores.decisive
    with pytest.raises(DataError, match="compares two texts"):
        bertune.load(result.folder).predict(["a dog"])


# ---------------------------------------------------------------- vectors


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    (folder / "rows.jsonl").write_text(lines_of(PAIRS), encoding="utf-8")
    files = [f"data.train={folder / 'rows.jsonl'}", f"data.dev={folder / 'rows.jsonl'}"]
    bertune.train("embed", [f"model={tiny}", f"out={folder / 'out'}", "train.max_steps=3", *files], quiet=True)
    return bertune.load(folder / "out", precision="fp32")


TEXTS = ["the dog is good", "a cat", "the dog is good", "大 人 and a very big house was not red", "a"]


def test_vectors_are_in_order_and_do_not_depend_on_the_batch(model):
    together = model.encode(TEXTS)
    assert together.shape == (5, 32)
    assert together.dtype == np.float32
    assert np.array_equal(together[0], together[2])
    for text, vector in zip(TEXTS, together, strict=True):
        alone = model.encode(text)
        assert alone.shape == (32,)
        np.testing.assert_allclose(alone, vector, atol=1e-5)


def test_a_repeated_text_is_encoded_once(model, monkeypatch):
    asked = []
    encode = model.tokenizer.encode
    monkeypatch.setattr(model.tokenizer, "encode", lambda texts: asked.extend(texts) or encode(texts))
    model.encode(TEXTS * 3)
    assert sorted(asked) == sorted({(t,) for t in TEXTS})


def test_forms_of_vectors(model):
    plain = model.encode(TEXTS)
    unit = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(unit * np.linalg.norm(plain, axis=1, keepdims=True), plain, atol=1e-5)
    assert np.array_equal(model.encode(TEXTS, truncate_dim=8), plain[:, :8])
    assert model.encode(TEXTS, precision="float16").dtype == np.float16
    small = model.encode(TEXTS, precision="int8").astype(float)
    np.testing.assert_allclose(model.similarity(small, small), model.similarity(plain, plain), atol=0.01)
    assert np.array_equal(model.encode(TEXTS, precision="binary"), np.packbits(plain > 0, axis=1))
    assert torch.equal(model.encode(TEXTS, convert_to_tensor=True), torch.from_numpy(plain))
    np.testing.assert_allclose(model.similarity_pairwise(plain, plain[::-1].copy()), np.diag(model.similarity(plain, plain[::-1].copy())), atol=1e-6)
    assert (model.get_embedding_dimension(), model.max_seq_length) == (32, 64)


def test_what_encode_refuses(model):
    with pytest.raises(DataError, match="texts:2: expected a text that is not empty"):
        model.encode(["a", " "])
    with pytest.raises(DataError, match="texts:1"):
        model.encode([3])
    with pytest.raises(ConfigError, match="truncate_dim: 33 is not from 1 to 32"):
        model.encode(["a"], truncate_dim=33)
    with pytest.raises(ConfigError, match="no prompt 'query'; this model has none"):
        model.encode(["a"], prompt_name="query")
    with pytest.raises(ConfigError, match="'int7' is none of float32"):
        model.encode(["a"], precision="int7")


def test_prompts_stand_before_texts(model):
    model.prompts = {"query": "the ", "document": "a "}
    try:
        for found, text in (
            (model.encode("dog", prompt_name="query"), "the dog"),
            (model.encode("dog", prompt="good "), "good dog"),
            (model.encode_query("dog"), "the dog"),
            (model.encode_document("dog"), "a dog"),
            (model.encode("dog"), "dog"),
        ):
            np.testing.assert_allclose(found, model.encode(text), atol=1e-6)
    finally:
        model.prompts = {}


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert", "mpnet"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "pooler", "first_last_avg"])
def test_pooling_is_that_of_hidden_states(encoder_of, kind, pooling):
    from transformers import AutoModel, AutoTokenizer

    folder = encoder_of(kind)
    run, task = story.prepare("embed", [f"options.pooling={pooling}", f"model={folder}"])
    encoder, report = read_encoder(folder)
    head = task.head(encoder, report.pooler)
    tokenizer = load_tokenizer(folder, encoder.longest, run.data)
    rows = EncodedRows(task.encode([bertune.Example((t, t + " is red")) for t in ("a dog", "the big house")], tokenizer))
    with torch.no_grad():
        ours = Model(encoder, head).eval().vectors(rows.texts([2, 1]))
        theirs = AutoModel.from_pretrained(folder).eval()
        for text, vector in zip(("the big house", "a dog is red"), ours, strict=True):
            out = theirs(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt"), output_hidden_states=True)
            states = out.last_hidden_state[0]
            expected = {
                "mean": lambda s=states: s.mean(0),
                "cls": lambda s=states: s[0],
                "max": lambda s=states: s.max(0).values,
                "pooler": lambda s=states: torch.tanh(head.dense[0](s[0])),
                "first_last_avg": lambda s=states, o=out: ((o.hidden_states[1][0] + s) / 2).mean(0),
            }[pooling]()
            torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet"])
def test_dropout_of_the_encoder_can_be_set(encoder_of, kind):
    encoder, _ = read_encoder(encoder_of(kind))
    tokenizer = load_tokenizer(encoder_of(kind), encoder.longest, story.prepare("embed")[0].data)
    ragged = EncodedRows([bertune.types.Encoded((p,)) for p in tokenizer.encode([("a dog is good",)])]).texts([0])
    with torch.no_grad():
        still = encoder.eval()(ragged)
        encoder.train().set_dropout(0.0)
        assert torch.equal(encoder(ragged), still)
        encoder.set_dropout(0.3)
        assert not torch.allclose(encoder(ragged), still, atol=1e-3)
        assert torch.equal(encoder.eval()(ragged), still)
