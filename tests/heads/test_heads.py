"""Pooling equals a loop over rows; heads have the names and the outputs of transformers."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from bertune.encoders.architectures import DEFAULT_HEAD, HEADS
from bertune.heads.head import EmbeddingHead, Head
from bertune.heads.model import Model
from bertune.heads.pooled import PooledHead
from bertune.heads.sentence import SentenceHead
from bertune.kernels.ragged_ops import first_token_pooling, max_pooling, mean_pooling, token_row_index
from bertune.types import Batch, PairIndex, Ragged

LENGTHS = (3, 1, 7, 2, 1, 5)
WIDTH = 16


def ragged(lengths: tuple[int, ...] = LENGTHS) -> Ragged:
    count = sum(lengths)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
    return Ragged(torch.arange(5, 5 + count), torch.zeros(count, dtype=torch.long), offsets, lengths)


def batch(lengths: tuple[int, ...] = LENGTHS) -> Batch:
    return Batch(ragged(lengths), None, tuple(range(len(lengths))))


def states(count: int = sum(LENGTHS), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """States far below 0, so that a maximum with a stray 0 shows."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype) - 9


ROW_POOLING = {
    first_token_pooling: lambda row: row[0],
    mean_pooling: lambda row: sum(row) / len(row),
    max_pooling: lambda row: torch.stack([row[:, i].max() for i in range(row.shape[1])]),
}


def head_states(head: PooledHead, x: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The states that a model passes to a head: all of them, or those of first tokens."""
    return first_token_pooling(x, batch.ragged) if head.reads == "first_token" else x


def pool_by_loop(pool, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([ROW_POOLING[pool](row) for row in x.split(LENGTHS)])


def test_rows_of_tokens():
    assert token_row_index(ragged()).tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 5, 5, 5, 5, 5]


@pytest.mark.parametrize("pool", ROW_POOLING)
def test_pooling_is_a_loop_over_rows(pool):
    x = states(dtype=torch.float64)
    assert pool(x, ragged()).shape == (len(LENGTHS), WIDTH)
    torch.testing.assert_close(pool(x, ragged()), pool_by_loop(pool, x), atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("pool", ROW_POOLING)
def test_pooling_has_the_gradient_of_a_loop_over_rows(pool):
    x = states(dtype=torch.float64).requires_grad_()
    weights = torch.randn(len(LENGTHS), WIDTH, dtype=torch.float64)
    (actual,) = torch.autograd.grad((pool(x, ragged()) * weights).sum(), x)
    (expected,) = torch.autograd.grad((pool_by_loop(pool, x) * weights).sum(), x)
    torch.testing.assert_close(actual, expected, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("pool", ROW_POOLING)
def test_a_row_does_not_depend_on_the_others(pool):
    x = states()
    for row, alone in enumerate(x.split(LENGTHS)):
        assert torch.equal(pool(x, ragged())[row], pool(alone, ragged((len(alone),)))[0])


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean", "max"])
@pytest.mark.parametrize("num_outputs", [1, 5])
def test_a_head_gives_one_vector_a_row(pooling, num_outputs):
    head = PooledHead(WIDTH, num_outputs, pooling, DEFAULT_HEAD, 0.5)
    assert head.reads == ("first_token" if pooling in {"pooler", "cls"} else "last")
    assert head(head_states(head, states(), batch()), batch()).shape == (len(LENGTHS), num_outputs)
    assert (head.dense is not None) == (pooling == "pooler")
    assert {n: tuple(p.shape) for n, p in head.named_parameters()} == {
        **({"dense.weight": (WIDTH, WIDTH), "dense.bias": (WIDTH,)} if pooling == "pooler" else {}),
        "out.weight": (num_outputs, WIDTH),
        "out.bias": (num_outputs,),
    }


@pytest.mark.parametrize(
    ("pooling", "pool"), [("cls", first_token_pooling), ("mean", mean_pooling), ("max", max_pooling)]
)
def test_a_head_without_a_hidden_layer_is_linear_on_pooled_states(pooling, pool):
    head = PooledHead(WIDTH, 3, pooling, DEFAULT_HEAD, 0.5).eval()
    head.out.bias.data.normal_()
    expected = pool_by_loop(pool, states()) @ head.out.weight.T + head.out.bias
    torch.testing.assert_close(
        head(head_states(head, states(), batch()), batch()), expected, atol=1e-5, rtol=1e-5
    )


def test_first_weights_are_those_of_bert():
    torch.manual_seed(0)
    head = PooledHead(200, 100, "pooler", DEFAULT_HEAD, 0.1)
    for layer in (head.dense, head.out):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.001)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    "head",
    [PooledHead(WIDTH, 2, p, DEFAULT_HEAD, 0.0) for p in ("pooler", "cls", "mean", "max")] + [nn.Identity()],
)
def test_a_model_gives_a_head_what_it_reads(head):
    """All states, or those of first tokens if the head reads these; in fp32."""

    class Encoder(nn.Module):
        def forward(self, x: Ragged, output: str = "last") -> torch.Tensor:
            result = states(x.input_ids.numel(), torch.bfloat16)
            return first_token_pooling(result, x) if output == "first_token" else result

    received: list[torch.Tensor] = []
    head.forward = lambda x, _batch: received.append(x)  # type: ignore[method-assign]
    Model(Encoder(), head)(batch())
    (result,) = received
    all_states = states(batch().ragged.input_ids.numel(), torch.bfloat16).float()
    assert result.dtype == torch.float32
    assert torch.equal(
        result,
        first_token_pooling(all_states, batch().ragged)
        if getattr(head, "reads", "last") == "first_token"
        else all_states,
    )


@pytest.mark.parametrize("kind", HEADS)
def test_dropout_comes_where_the_architecture_has_it(kind):
    head = PooledHead(WIDTH, 2, "pooler", HEADS[kind], 0.5)
    dropout_inputs: list[torch.Tensor] = []
    head.dropout.register_forward_hook(lambda _module, x, _result: dropout_inputs.append(x[0]))
    head(head_states(head, states(), batch()), batch())
    assert len(dropout_inputs) == 1 + HEADS[kind].dropout_before_dense
    assert (
        torch.equal(dropout_inputs[0], first_token_pooling(states(), ragged()))
        == HEADS[kind].dropout_before_dense
    )


@pytest.fixture(scope="module")
def reference_models():
    """Classifiers of transformers with random weights, each built once."""
    made: dict[str, nn.Module] = {}

    def get(kind: str) -> nn.Module:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        if kind not in made:
            settings = {
                "hidden_size": WIDTH,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
            }
            if kind == "distilbert":
                settings = {"dim": WIDTH, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
            if kind in {"albert", "electra"}:
                settings["embedding_size"] = 8
            config = AutoConfig.for_model(
                kind, vocab_size=40, max_position_embeddings=32, pad_token_id=0, num_labels=3, **settings
            )
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[kind] = AutoModelForSequenceClassification.from_config(config).eval()
            for parameter in made[kind].parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
        return made[kind]

    return get


@pytest.mark.parametrize("kind", HEADS)
def test_saved_names_are_those_of_transformers(kind, reference_models):
    model, form = reference_models(kind), HEADS[kind]
    head = PooledHead(WIDTH, 3, "pooler", form, 0.1)
    saved = {head.hf_name(name): tuple(p.shape) for name, p in head.named_parameters()}
    assert len(saved) == 4
    assert saved.items() <= {n: tuple(p.shape) for n, p in model.state_dict().items()}.items()
    # every weight of transformers outside the encoder is one of the head
    assert {n for n, _ in model.named_parameters() if not n.startswith(f"{model.base_model_prefix}.")} <= set(
        saved
    )
    assert type(model).__name__ == form.hf_class
    if form.pretrained_pooler:
        assert f"{model.base_model_prefix}.{form.pretrained_pooler}" == form.dense
        assert isinstance(model.base_model.get_submodule(form.pretrained_pooler), nn.Linear)


@pytest.mark.parametrize("kind", HEADS)
def test_logits_are_those_of_transformers(kind, reference_models):
    model = reference_models(kind)
    head = PooledHead(WIDTH, 3, "pooler", HEADS[kind], 0.1).eval()
    head.load_state_dict({name: model.state_dict()[head.hf_name(name)] for name in head.state_dict()})
    lengths = (6, 6)
    ids = ragged(lengths).input_ids.view(2, 6)
    with torch.no_grad():
        hidden = model.base_model(ids, attention_mask=torch.ones_like(ids))[0]
        logits = model(ids, attention_mask=torch.ones_like(ids)).logits
        actual = head(head_states(head, hidden.flatten(0, 1), batch(lengths)), batch(lengths))
    assert logits.std() > 0.05  # otherwise all heads would agree
    torch.testing.assert_close(actual, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_dropout_is_read_from_a_setting_that_the_architecture_has(kind, reference_models):
    settings = reference_models(kind).config.to_dict()
    assert any(settings.get(name) is not None for name in HEADS[kind].dropout_keys)


def test_names_of_a_head_of_our_own():
    head = PooledHead(WIDTH, 2, "pooler", DEFAULT_HEAD, 0.1)
    assert [head.hf_name(name) for name in head.state_dict()] == [
        "bertune_head.dense.weight",
        "bertune_head.dense.bias",
        "bertune_head.out.weight",
        "bertune_head.out.bias",
    ]


class StubEncoder(nn.Module):
    """First tokens as zeros, all tokens as ones."""

    prefix = "bert."

    def forward(self, ragged: Ragged, output: str = "last") -> torch.Tensor:
        if output == "first_token":
            return torch.zeros(len(ragged.lengths), WIDTH)
        return torch.ones(ragged.input_ids.numel(), WIDTH)

    def hf_state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_hf_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        assert not state


class PlainHead(nn.Module):
    """A user's head without the base class `Head`."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(WIDTH, 2)

    def forward(self, states: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.out(states)


class PlainFirstTokenHead(PlainHead):
    """A user's head that overrides defaults without the base class."""

    reads = "first_token"

    def __init__(self):
        super().__init__()
        self.learning_rates = {"out": 1e-3}

    def hf_name(self, name: str) -> str:
        return f"mine.{name}"


def test_a_plain_module_gets_the_defaults_of_a_head():
    head = PlainHead()
    model = Model(StubEncoder(), head)
    assert model.head is head
    assert (head.reads, head.learning_rates) == (Head.reads, Head.learning_rates) == ("last", {})
    assert torch.equal(model(batch()), head.out(torch.ones(sum(LENGTHS), WIDTH)))
    saved = model.hf_state_dict()
    assert list(saved) == ["bertune_head.out.weight", "bertune_head.out.bias"]
    other = copy.deepcopy(Model(StubEncoder(), PlainHead()))
    other.load_hf_state_dict(saved)
    assert torch.equal(other.head.out.weight, head.out.weight)


def test_a_plain_module_keeps_what_it_says_of_itself():
    head = PlainFirstTokenHead()
    model = Model(StubEncoder(), head)
    assert (model.head.reads, model.head.learning_rates) == ("first_token", {"out": 1e-3})
    assert list(model.hf_state_dict()) == ["mine.out.weight", "mine.out.bias"]
    assert torch.equal(model(batch()), head.out(torch.zeros(len(LENGTHS), WIDTH)))


def test_a_model_tells_whether_its_head_makes_vectors():
    model = Model(StubEncoder(), SentenceHead(WIDTH, "mean", [(8, "none")]))
    assert isinstance(model.head, EmbeddingHead) and model.embedding_dim == 8
    vectors = model.vectors(ragged())
    assert vectors.shape == (len(LENGTHS), 8)
    index = torch.arange(len(LENGTHS))
    assert torch.equal(model.compare(vectors, PairIndex((index,), index)).vectors, vectors)
    for head in (PooledHead(WIDTH, 2, "cls", DEFAULT_HEAD, 0.0), PlainHead()):
        model = Model(StubEncoder(), head)
        assert not isinstance(model.head, EmbeddingHead) and model.embedding_dim == 0
        for call in (lambda m: m.vectors(ragged()), lambda m: m.compare(vectors, PairIndex((index,), index))):
            with pytest.raises(TypeError, match="Head makes no vectors: it lacks `vectors`"):
                call(model)
