"""Ragged encoders, bertune's own and those of transformers, compute what transformers computes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from bertune.data.dataset import EncodedDataset
from bertune.encoders.architectures import PACKABLE
from bertune.encoders.auto import AutoEncoder
from bertune.encoders.auto_load import load_auto_encoder
from bertune.encoders.bert import Bert
from bertune.encoders.families.registry import FAMILIES
from bertune.encoders.load import load_encoder
from bertune.kernels.dropout import DROPOUT_GENERATOR
from bertune.types import EncodedExample, Encoding, Numerics

KINDS = [
    "bert",
    "ernie",
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "albert",
    "distilbert",
    "mpnet",
    "deberta",
    "deberta-v2",
]
NATIVE_KINDS = [kind for kind, family in FAMILIES.items() if not family.bertune_only_reason]
"""Those of transformers that bertune's own encoder computes."""
LENGTHS = [7, 1, 40, 33, 2, 32, 60, 7]


def ragged(lengths: list[int], seed: int = 0, vocabulary: int = 90) -> EncodedDataset:
    random = np.random.default_rng(seed)
    rows = [
        EncodedExample(
            (Encoding(random.integers(5, vocabulary, n).tolist(), [int(i > n // 2) for i in range(n)]),)
        )
        for n in lengths
    ]
    return EncodedDataset(rows)


def hf_states(folder, batch) -> torch.Tensor:
    """One row at a time through transformers, without any padding."""
    from transformers import AutoModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModel.from_pretrained(
            str(folder), dtype=torch.float32, attn_implementation="eager"
        ).eval()
    states = []
    for start, stop in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        given = {
            "input_ids": batch.input_ids[None, start:stop],
            "attention_mask": torch.ones(1, int(stop - start), dtype=torch.long),
        }
        if (getattr(model.config, "type_vocab_size", 0) or 0) > 1 and model.config.model_type != "distilbert":
            given["token_type_ids"] = batch.token_type_ids[None, start:stop]
        states.append(model(**given).last_hidden_state[0])
    return torch.cat(states)


READERS = {"read": load_encoder, "auto": load_auto_encoder}
BOTH = [
    (kind, reader) for kind in KINDS for reader in READERS if reader == "read" or kind in NATIVE_KINDS
]  # ours can be had from transformers too


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_where_it_computes_the_architecture(kind, encoder_of):
    encoder = load_encoder(encoder_of(kind))[0]
    assert type(encoder) is (Bert if kind in NATIVE_KINDS else AutoEncoder)
    assert type(load_auto_encoder(encoder_of(kind))[0]) is AutoEncoder
    assert load_auto_encoder(encoder_of(kind))[0]._packed == (kind in PACKABLE)


@pytest.mark.parametrize(("kind", "reader"), BOTH)
def test_states_are_those_of_transformers(kind, reader, encoder_of):
    encoder = READERS[reader](encoder_of(kind))[0]
    encoder.eval()
    batch = ragged(LENGTHS).get_batch(range(len(LENGTHS)), list).ragged
    with torch.no_grad():
        ours = encoder(batch)
        theirs = hf_states(encoder_of(kind), batch)
        assert torch.equal(encoder(batch, output="last"), ours)
        first = encoder(batch, output="first_token")
    assert ours.shape == (sum(LENGTHS), 32)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first, theirs[batch.offsets[:-1]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", sorted(PACKABLE))
def test_packed_and_padded_give_the_same_gradients(kind, encoder_of):
    gradients = []
    for packed in (True, False):
        encoder = load_auto_encoder(encoder_of(kind))[0]
        encoder.eval()
        encoder._packed = packed
        if not packed:
            encoder.hf.set_attn_implementation("sdpa")
        batch = ragged(LENGTHS).get_batch(range(len(LENGTHS)), list).ragged
        (encoder(batch) ** 2).sum().backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=2e-4, rtol=2e-3, msg=name)


@pytest.mark.parametrize("kind", sorted(PACKABLE))
def test_dropout_of_a_packed_encoder_of_transformers(kind, encoder_of):
    """Its attention draws cheap bytes when asked to, and torch's numbers otherwise; none in eval mode."""
    batch = ragged(LENGTHS).get_batch(range(len(LENGTHS)), list).ragged
    encoder = load_auto_encoder(encoder_of(kind))[0]
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    for fast in (True, False):
        encoder.set_numerics(Numerics(fast_dropout=fast))
        before = DROPOUT_GENERATOR.get_state()
        assert not torch.equal(encoder.train()(batch), encoder(batch))
        assert (DROPOUT_GENERATOR.get_state() != before) == fast
        before = DROPOUT_GENERATOR.get_state()
        assert torch.equal(encoder.eval()(batch), encoder(batch))
        assert DROPOUT_GENERATOR.get_state() == before


@pytest.mark.parametrize("kind", ["bert", "albert", "deberta-v2"])
def test_a_row_does_not_depend_on_its_batch(kind, encoder_of):
    encoder, _ = load_encoder(encoder_of(kind))
    encoder.eval()
    rows = ragged(LENGTHS)
    with torch.no_grad():
        whole = encoder(rows.get_batch(range(len(LENGTHS)), list).ragged)
        alone = torch.cat([encoder(rows.get_batch([i], list).ragged) for i in range(len(LENGTHS))])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)


def test_depth_orders_parameters_from_embeddings_to_top(encoder_of):
    for kind in KINDS:
        encoder, _ = load_encoder(encoder_of(kind))
        depths = {name: encoder.layer_index(name) for name, _ in encoder.named_parameters()}
        assert min(depths.values()) == 0
        assert max(depths.values()) == encoder.num_layers
        assert encoder.num_layers == (1 if kind == "albert" else 2), kind
        assert (
            encoder.layer_index(
                next(n for n, p in encoder.named_parameters() if p is encoder.word_embeddings())
            )
            == 0
        )
        for name, depth in depths.items():
            numbers = [int(part) for part in name.split(".") if part.isdigit()]
            assert (
                depth == numbers[0] + 1 if numbers and kind != "albert" else depth in {0, encoder.num_layers}
            ), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("active", [False, True], ids=["whole", "active"])
def test_a_checkpoint_is_what_transformers_saves_and_comes_back(kind, active, encoder_of):
    """Names, types and bytes; whether all words are trained or some."""
    from transformers import AutoModel

    encoder = load_encoder(encoder_of(kind))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModel.from_pretrained(str(encoder_of(kind)), dtype=torch.float32).state_dict()
    expected = {name: tensor for name, tensor in theirs.items() if not name.startswith("pooler")}
    if active:
        assert encoder.use_active_vocabulary(torch.tensor([5, 7, 80])) is not None
    found = encoder.hf_state_dict()
    assert found.keys() == expected.keys()
    assert [
        n for n in expected if found[n].dtype != expected[n].dtype or not torch.equal(found[n], expected[n])
    ] == []
    found = {name: tensor.clone() for name, tensor in found.items()}
    other = load_encoder(encoder_of(kind))[0]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    if active:
        other.use_active_vocabulary(torch.tensor([6]))
    other.load_hf_state_dict(found)
    assert len(other.word_embeddings()) == len(
        encoder.hf_state_dict()[next(n for n in found if "word_embeddings" in n)]
    )
    again = other.hf_state_dict()
    assert [n for n in expected if not torch.equal(again[n], expected[n])] == []
    missing = dict(found)
    missing.pop(next(n for n in found if "LayerNorm.bias" in n or "layer_norm.bias" in n))
    with pytest.raises(KeyError):
        other.load_hf_state_dict(missing)
    with pytest.raises(RuntimeError):
        other.load_hf_state_dict({n: t[..., None] for n, t in found.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_may_be_as_long_as_is_said(kind, encoder_of):
    encoder, _ = load_encoder(encoder_of(kind))
    assert encoder.max_positions == {"roberta": 63, "xlm-roberta": 63, "camembert": 63, "mpnet": 62}.get(
        kind, 64
    )
    with torch.no_grad():
        assert encoder.eval()(ragged([encoder.max_positions, 3]).get_batch(range(2), list).ragged).shape == (
            encoder.max_positions + 3,
            32,
        )
