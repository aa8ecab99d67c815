"""Training the active words alone is training them all: the same weights, whatever is switched on."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as some
from tests.builders import build_run, make_still_encoder

from bertune.data.dataset import EncodedDataset
from bertune.encoders.active_vocabulary import ActiveVocabulary, make_active_vocabulary
from bertune.encoders.auto import AutoEncoder
from bertune.encoders.bert import Bert
from bertune.errors import ArtifactError
from bertune.heads.model import Model
from bertune.kernels.dropout import DROPOUT_GENERATOR
from bertune.training.optim import parameter_groups
from bertune.training.step import TrainStep
from bertune.types import EncodedExample, Encoding, Example

KINDS = [
    "bert",
    "roberta",
    "electra",
    "distilbert",
    "albert",
    "megatron-bert",
    "mpnet",
    "deberta",
    "deberta-v2",
]
PADDED = ["megatron-bert", "mpnet", "deberta", "deberta-v2"]
STEPS = 33
FLOAT64 = SimpleNamespace(dtype=torch.float64, precision="fp32", fast_dropout=True)
LABELS = [Example(("the dog",), label) for label in "abc"]
USED, UNUSED = range(5, 40), range(40, 90)  # token ids of the training rows, and others
TRICKS: dict[str, dict[str, object]] = {
    "plain": {},
    "no decay": {"weight_decay": 0.0},
    "ema": {"ema": 0.9},
    "fgm": {"fgm": 0.5},
    "r_drop": {"r_drop": 1.0},
    "layer decay": {"layer_decay": 0.7, "head_learning_rate": 5e-3},
    "no clipping": {"max_grad_norm": 0},
    "cut": {"micro_batches": 3, "schedule": "cosine"},
}


class Exact(Model):
    """In float64, so that two ways to the same weights can be told from two that only lie near."""

    def forward(self, batch):
        return self.head(self.encoder(batch.ragged, output=self.head.reads), batch)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Encoders without dropout, made once each."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = make_still_encoder(tmp_path_factory.mktemp("still") / kind, kind)
        return made[kind]

    return get


def rows_of(ids, count=24, seed=0, even=False) -> EncodedDataset:
    random = np.random.default_rng(seed)
    lengths = [9] * count if even else random.integers(1, 20, count)
    pieces = [Encoding(random.choice(ids, n).tolist(), [int(i > n // 2) for i in range(n)]) for n in lengths]
    return EncodedDataset([EncodedExample((piece,), int(piece.input_ids[0]) % 3) for piece in pieces])


def build(folder, active: bool, exact: bool = True, rows: EncodedDataset | None = None, **train) -> TrainStep:
    usual = {
        "max_steps": STEPS, "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0.1,
        "max_grad_norm": 0.5, "warmup_ratio": 0.2,
        "precision": "fp32", "active_vocabulary": active,
    }  # fmt: skip
    run = {"task": "classify", "model": str(folder), "options": {"dropout": 0.0}, "train": {**usual, **train}}
    built = build_run(run, LABELS, seed=0)
    model = built.model
    if exact:
        model = Exact(model.encoder, model.head).double()
        if isinstance(model.encoder, Bert):
            model.encoder.set_numerics(FLOAT64)
    return replace(built, model=model, dataset=rows or rows_of(USED)).step()


def advance(work: TrainStep, until: int = STEPS) -> list[float]:
    losses: list[float] = []
    if work.state.progress.step < until:
        for rows in work.batches():
            work.model.train()
            work.step(rows)
            losses.append(float(work.state.loss))
            work.state.loss = None
            if work.state.progress.step == until:
                break
    return losses


def everything(work: TrainStep) -> dict[str, torch.Tensor]:
    """All weights, those of the average too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        live = {f"live {n}": t.clone() for n, t in work.model.encoder.hf_state_dict().items()}
        with work.averaged_weights():
            mean = {f"mean {n}": t.clone() for n, t in work.model.encoder.hf_state_dict().items()}
    return live | mean | {f"head {n}": t.clone() for n, t in work.model.head.state_dict().items()}


def near(ours, theirs, relative=1e-9) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        difference = (ours[name] - tensor).abs().max().item()
        assert difference <= relative * max(tensor.abs().max().item(), 1e-3), f"{name}: {difference}"


def words(weights) -> torch.Tensor:
    return next(
        t for n, t in weights.items() if n.startswith("live") and n.endswith("word_embeddings.weight")
    )


@pytest.mark.parametrize("tricks", TRICKS.values(), ids=TRICKS)
def test_training_is_dense_training(tricks, still):
    """Rows whose gradients are not 0 move by 30 steps of AdamW; the others decay as when trained."""
    active, dense = build(still("bert"), True, **tricks), build(still("bert"), False, **tricks)
    start = words(everything(dense))
    used = torch.from_numpy(active.dataset.used_ids())
    assert active.num_active_words == len(used) == len(active.model.encoder.word_embeddings()) < len(start)
    assert dense.num_active_words is None
    assert advance(active) == pytest.approx(advance(dense), rel=1e-6)
    ours, theirs = everything(active), everything(dense)
    near(ours, theirs)
    moved = (words(theirs) - start).abs().amax(-1)
    assert moved[used].min() > 1e-3
    untouched = torch.ones(len(start), dtype=torch.bool).index_fill_(0, used, False)
    if tricks.get("weight_decay") == 0.0:
        assert torch.equal(words(ours)[untouched], start[untouched])
    else:
        factors = words(ours)[untouched] / start[untouched]
        assert 0 < factors.min() <= factors.max() < 0.999
        assert factors.max() - factors.min() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_dense_training_in_every_architecture(kind, still):
    active, dense = build(still(kind), True, ema=0.9), build(still(kind), False, ema=0.9)
    assert active.num_active_words is not None
    assert isinstance(active.model.encoder, AutoEncoder) == (kind in {"albert", *PADDED})
    advance(active)
    advance(dense)
    near(
        everything(active), everything(dense), 1e-7 if kind in PADDED else 1e-9
    )  # transformers' masks and sines are fp32


def test_training_is_dense_training_in_fp32(still):
    """With a large epsilon, since Adam makes of rounding near 0 what it likes."""
    train = {"adam_epsilon": 1e-3, "learning_rate": 1e-3, "ema": 0.9}
    active, dense = (build(still("bert"), way, exact=False, **train) for way in (True, False))
    assert {p.dtype for p in active.model.parameters()} == {torch.float32}
    advance(active)
    advance(dense)
    near(everything(active), everything(dense), 1e-5)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_the_untouched_rows_under_plain_adamw(betas, still):
    """By hand, without the engine: AdamW, decay, clipping, a rate that rises and falls."""
    found = []
    for active in (True, False):
        work = build(still("bert"), active)
        optimizer = torch.optim.AdamW(parameter_groups(work.model, work.config), betas=betas)
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * min(step / 5, (STEPS - step) / STEPS)
            batch = work.dataset.get_batch([step % 24, (step + 7) % 24], work.task.collate_target)
            optimizer.zero_grad()
            work.task.loss(work.model.train()(batch), batch).backward()
            torch.nn.utils.clip_grad_norm_(work.model.parameters(), 0.3)
            optimizer.step()
        found.append(everything(work))
    near(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_words_that_training_never_saw(kind, still):
    """Scored as after dense training; an error in training mode, since their vectors could not be trained."""
    even = kind in PADDED
    active, dense = (build(still(kind), way, ema=0.9, rows=rows_of(USED, even=even)) for way in (True, False))
    advance(active, 12)
    advance(dense, 12)
    new = rows_of([*USED, *UNUSED], seed=5)
    assert not set(new.used_ids()) <= set(active.dataset.used_ids())
    batch = new.get_batch(range(len(new)), list)
    for averaged in (False, True):
        outs = []
        for work in (active, dense):
            work.model.eval()
            with (
                work.averaged_weights() if averaged else torch.no_grad(),
                torch.no_grad(),
                work.model.encoder.inference(),
            ):
                outs.append(work.model(batch))
        torch.testing.assert_close(*outs, atol=1e-7, rtol=1e-7)
    with pytest.raises(IndexError):
        active.model.train()(batch)
    with torch.no_grad():
        active.model.train()(active.dataset.get_batch(range(8), list))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_and_what_comes_after(kind, still):
    work = build(still(kind), True, exact=False, rows=rows_of(USED, even=True))
    encoder = work.model.encoder
    advance(work, 8)
    saved = {n: t.clone() for n, t in work.model.hf_state_dict().items()}
    loaded = build(still(kind), False, exact=False).model
    loaded.load_hf_state_dict(saved)
    batch = rows_of([*USED, *UNUSED]).get_batch(range(24), list)
    with torch.no_grad():
        expected = work.model.eval()(batch)
        torch.testing.assert_close(loaded.eval()(batch), expected, atol=1e-6, rtol=1e-5)
        encoder.use_full_vocabulary()
        torch.testing.assert_close(work.model(batch), expected, atol=1e-6, rtol=1e-5)
    assert type(encoder.word_embeddings()) is torch.nn.Parameter
    assert encoder.word_embeddings().requires_grad
    assert len(encoder.word_embeddings()) == len(saved[next(n for n in saved if "word_embeddings" in n)])
    after = work.model.hf_state_dict()
    assert after.keys() == saved.keys()
    assert [n for n in saved if not torch.equal(after[n], saved[n])] == []
    work.model.train()(batch)  # all words can be trained again
    again = build(still(kind), True, exact=False).model
    again.load_hf_state_dict(saved)  # into a model whose words are in part active
    assert [n for n, t in again.hf_state_dict().items() if not torch.equal(t, saved[n])] == []


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_words_can_be_chosen_anew(kind, still):
    """A model that was trained on some rows can be trained on others: no vector is lost or mixed up."""
    first = build(still(kind), True, exact=False)
    advance(first, 8)
    saved = {n: t.clone() for n, t in first.model.hf_state_dict().items()}
    new = rows_of(UNUSED, seed=3)
    again = TrainStep(first.model, first.task, new, first.run, Accelerator(cpu=True))
    assert again.num_active_words == len(new.used_ids())
    assert [n for n, t in again.model.hf_state_dict().items() if not torch.equal(t, saved[n])] == []
    again.step([0, 1, 2])


@pytest.mark.parametrize("kind", ["bert", "albert", "deberta-v2"])
def test_a_state_comes_back(kind, tmp_path, encoder_of):
    """With dropout: what stands for the untouched rows, its moments, and the generator of bytes."""
    rows = rows_of(USED, even=True)
    train = {"ema": 0.9, "exact": False, "rows": rows}
    straight = build(encoder_of(kind), True, **train)
    losses = advance(straight)
    first = build(encoder_of(kind), True, **train)
    before = advance(first, 10)
    name = next(n for n, _ in first.model.named_parameters() if n.endswith(".scale"))
    scale = first.model.get_parameter(name)
    assert 0.9 < scale.item() < 1
    tensors, values = first.state.capture()
    tensors, values = copy.deepcopy(tensors), json.loads(json.dumps(values))
    assert torch.equal(tensors[f"model.{name}"], scale)
    assert tensors[f"ema.{name}"].item() != scale.item()
    assert values["random"][0]["bytes"] == DROPOUT_GENERATOR.get_state()
    table = f"model.{name.removesuffix('scale')}weight"
    padded = kind == "deberta-v2"  # whose pads are looked up in the table too
    assert len(tensors[table]) == len(rows.used_ids()) + padded
    first.state.write(tmp_path)
    advance(first, 12)
    for in_memory in (True, False):
        DROPOUT_GENERATOR.seed(77)
        torch.manual_seed(77)
        again = build(encoder_of(kind), True, **train)
        DROPOUT_GENERATOR.seed(78)
        if in_memory:
            again.state.restore(tensors, values)
        else:
            again.state.read(tmp_path)
        assert DROPOUT_GENERATOR.get_state() == values["random"][0]["bytes"]
        assert torch.equal(again.model.get_parameter(name), tensors[f"model.{name}"])
        assert before + advance(again) == losses
        ours, theirs = everything(again), everything(straight)
        assert [n for n in theirs if not torch.equal(ours[n], theirs[n])] == []


# The table alone


tables = some.tuples(some.integers(1, 30), some.integers(1, 6))


@settings(deadline=None)
@each(tables, some.data())
def test_a_table_answers_as_the_whole_one(size, data):
    number, width = size
    table = torch.randn(number, width, generator=torch.Generator().manual_seed(number * 7 + width))
    token = some.integers(0, number - 1)
    active = torch.tensor(data.draw(some.lists(token, min_size=1, max_size=40)))
    asked = torch.tensor(data.draw(some.lists(token, max_size=20)), dtype=torch.int64)
    vocabulary = ActiveVocabulary(table, active).eval()
    assert len(vocabulary.weight) == len(set(active.tolist()))
    assert torch.equal(vocabulary.full_weight(), table)
    for shape in ((-1,), (1, -1), (-1, 1)):
        assert torch.equal(vocabulary(asked.view(shape)), table[asked.view(shape)])
    vocabulary.train()
    assert torch.equal(vocabulary(active), table[active])
    for token in set(range(number)) - set(active.tolist()):
        with pytest.raises(IndexError):
            vocabulary(torch.tensor([token]))
    # a change of weights and scale changes the outputs and the full table, but never the given table
    with torch.no_grad():
        vocabulary.weight.mul_(-2)
        vocabulary.scale.mul_(0.5)
    expected = table * 0.5
    expected[active] = table[active] * -2
    assert torch.equal(vocabulary.full_weight(), expected)
    assert torch.equal(vocabulary.eval()(asked), expected[asked])
    before = table.clone()
    vocabulary.full_weight().zero_()
    assert torch.equal(table, before)


@settings(deadline=None)
@each(some.integers(2, 20), some.data())
def test_gradients_are_the_rows_of_the_dense_one(number, data):
    tokens = torch.tensor(data.draw(some.lists(some.integers(0, number - 1), min_size=1, max_size=30)))
    table = torch.randn(number, 3, dtype=torch.float64)
    vocabulary = ActiveVocabulary(table, tokens)
    dense = torch.nn.Embedding.from_pretrained(table, freeze=False)
    weights = torch.randn(len(tokens), 3, dtype=torch.float64)
    for words in (vocabulary, dense):
        (words(tokens) * weights).sum().backward()
        (words(tokens).square() * weights).sum().backward()  # gradients add up
    assert torch.equal(vocabulary.weight.grad, dense.weight.grad[tokens.unique()])
    assert torch.equal(vocabulary.scale.grad, torch.zeros(1, 1, dtype=torch.float64))


def test_only_what_changes_is_in_its_state():
    vocabulary = ActiveVocabulary(torch.randn(10, 3), torch.tensor([4, 4, 1]))
    assert {n: tuple(t.shape) for n, t in vocabulary.state_dict().items()} == {
        "weight": (2, 3),
        "scale": (1, 1),
    }
    assert {n for n, p in vocabulary.named_parameters() if p.requires_grad} == {"weight", "scale"}


def test_a_state_of_other_rows_is_refused(still):
    """As many words, but others: their vectors would go to the wrong tokens."""
    one = build(still("bert"), True, exact=False)
    other = build(still("bert"), True, exact=False, rows=rows_of(UNUSED[: len(USED)]))
    tensors, values = one.state.capture()
    with pytest.raises(ArtifactError, match="other training rows"):
        other.state.restore(tensors, values)
    dense = build(still("bert"), False, exact=False)
    with pytest.raises(ArtifactError, match="other training rows"):
        dense.state.restore(tensors, values)


def test_nothing_is_narrowed_where_every_word_is_used():
    table = torch.randn(6, 4)
    assert make_active_vocabulary(table, torch.arange(6)) is None
    assert len(make_active_vocabulary(table, torch.tensor([5, 2, 5])).weight) == 2
