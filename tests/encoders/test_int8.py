"""Layers in int8: products to the letter, states near those of fp32, whatever else is in the batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import make_encoder
from tests.encoders.test_load import NATIVE_KINDS, ragged
from torch.nn import functional as F

from bertune.encoders import int8
from bertune.encoders.auto_load import load_auto_encoder
from bertune.encoders.int8 import ROUNDING, _Code, _Product, _Quantizer, quantize
from bertune.encoders.load import load_encoder
from bertune.errors import ConfigError
from bertune.kernels import precision
from bertune.kernels.precision import choose_precision, has_fast_int8
from bertune.types import Numerics

CPU = torch.device("cpu")
on_such_processors = pytest.mark.skipif(not has_fast_int8(CPU), reason="this processor has no units for int8")
LENGTHS = [7, 1, 40, 33, 2, 16, 60, 1]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(lengths, seed=0):
    return ragged(list(lengths), seed).get_batch(range(len(lengths)), list).ragged


@pytest.fixture(scope="module")
def encoder_in_int8(tmp_path_factory):
    """Encoders in int8 and how to get one; read anew for every test."""
    made = {}

    def get(kind="bert", **changes):
        key = kind, *changes.items()
        if key not in made:
            made[key] = make_encoder(tmp_path_factory.mktemp("int8") / kind, kind, **changes)
        encoder = load_encoder(made[key])[0].eval()
        encoder.set_numerics(Numerics("int8"))
        quantize(encoder, batch_of([40, 8, 20, 3, 60, 30], seed=9))
        return encoder, load_encoder(made[key])[0].eval()

    return get


def likeness(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(F.cosine_similarity(a.float(), b.float(), dim=-1).min())


# What bytes stand for


@given(st.integers(0, 10**6), st.floats(0, 50), st.floats(1e-3, 1e3))
def test_bytes_are_within_half_a_step(seed, shift, size):
    x = size * (numbers(50, 12, seed=seed) + shift * numbers(12, seed=seed + 1))
    quantizer = _Quantizer(
        tuple(x.aminmax(dim=0)), [numbers(5, 12, seed=seed + 2), numbers(3, 12, seed=seed + 3)]
    )
    found = quantizer(x)
    assert found.dtype == torch.uint8 and found.shape == x.shape and found.is_contiguous()
    back = quantizer.center + (found.double() - 128) * quantizer.code.scale * quantizer.factor.double()
    steps = quantizer.code.scale * quantizer.factor.double()
    assert ((back - x).abs() / steps).max() < 0.51
    assert found.min() > 0 and found.max() < 255  # there is room for values beyond those seen


def test_what_goes_too_far_is_cut_off_and_never_wraps():
    quantizer = _Quantizer((-torch.ones(4), torch.ones(4)), [torch.ones(2, 4)])
    far = torch.tensor([[-1e30, -300.0, 300.0, 1e30]])
    assert quantizer(far).tolist() == [[0, 0, 255, 255]]
    assert quantizer(far.bfloat16()).tolist() == [[0, 0, 255, 255]]


def test_a_feature_that_never_moved_keeps_some_room():
    quantizer = _Quantizer(
        (torch.tensor([-1.0, 2.0, -3.0]), torch.tensor([1.0, 2.0, 3.0])), [torch.ones(2, 3)]
    )
    assert quantizer(torch.tensor([[0.0, 2.05, 0.0]])).tolist()[0][1] not in {0, 128, 255}


def test_rounding_leaves_the_number_in_the_lowest_byte():
    x = torch.arange(256).float()
    for shift in (-0.49, 0.0, 0.49):
        assert (x + shift + ROUNDING).view(torch.int32).to(torch.uint8).tolist() == list(range(256))


@on_such_processors
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_new"])
@pytest.mark.parametrize(
    ("rows", "width", "outputs"), [(1, 8, 4), (33, 32, 64), (50, 384, 8), (7, 1536, 384)]
)
def test_a_product_is_the_sum_of_the_products_of_its_integers(activation, rows, width, outputs):
    weight, bias, given = 0.1 * numbers(outputs, width), numbers(outputs, seed=1), _Code(0.02, 120)
    x = torch.randint(0, 256, (rows, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    steps = weight.abs().amax(1).double() / 127
    whole = (weight.double() / steps[:, None]).round()
    exact = ((x.double() - given.zero) @ whole.T) * given.scale * steps + bias.double()
    truth = {"none": lambda x: x, "gelu": F.gelu, "gelu_new": lambda x: F.gelu(x, approximate="tanh")}[
        activation
    ](exact)
    size = float(truth.abs().max())
    assert (
        _Product(weight, bias, given, torch.float32, activation)(x).double() - truth
    ).abs().max() < 1e-5 * max(size, 1)
    assert (
        _Product(weight, bias, given, torch.bfloat16, activation)(x).double() - truth
    ).abs().max() < 5e-3 * size
    code = _Code(size / 100, 110)
    in_bytes = _Product(weight, bias, given, torch.uint8, activation, code)(x)
    assert ((in_bytes.double() - code.zero) * code.scale - truth).abs().max() < 0.51 * code.scale


# Encoders


@on_such_processors
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *((kind, {}) for kind in NATIVE_KINDS),
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"hidden_act": "gelu_new"}),
        ("bert", {"hidden_act": "silu"}),
    ],
)
def test_states_are_near_those_of_fp32(kind, changes, encoder_in_int8):
    encoder, plain = encoder_in_int8(kind, **changes)
    batch = batch_of([30, 17, 5, 50], seed=4)
    with torch.inference_mode():
        found, truth = encoder(batch), plain(batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, truth)
    assert likeness(found, truth) > 0.99


@on_such_processors
def test_a_text_has_the_same_states_whatever_else_is_in_the_batch(encoder_in_int8):
    encoder, _ = encoder_in_int8()
    rows = ragged(LENGTHS)
    with torch.inference_mode():
        together = encoder(rows.get_batch(range(len(LENGTHS)), list).ragged)
        alone = torch.cat([encoder(rows.get_batch([n], list).ragged) for n in range(len(LENGTHS))])
    assert likeness(together, alone) > 0.99999  # equal but for the order in which attention may sum


@on_such_processors
def test_the_same_encoder_gives_the_same_numbers_every_time(encoder_in_int8):
    (first, _), (second, _) = encoder_in_int8(), encoder_in_int8()
    batch = batch_of(LENGTHS)
    with torch.inference_mode():
        assert torch.equal(first(batch), second(batch))


@on_such_processors
def test_first_tokens_alone_and_both_ends(encoder_in_int8):
    encoder, plain = encoder_in_int8()
    batch = batch_of(LENGTHS)
    with torch.inference_mode():
        whole, first, ends = encoder(batch), encoder(batch, "first_token"), encoder(batch, "first_last")
        assert likeness(first, whole[batch.offsets[:-1]]) > 0.999  # one query, another product of attention
        assert likeness(ends, plain(batch, "first_last")) > 0.99
        assert not torch.allclose(ends, whole)


@on_such_processors
def test_values_far_beyond_the_sample_cost_accuracy_and_nothing_else(encoder_in_int8):
    encoder, _ = encoder_in_int8()
    with torch.no_grad():
        encoder.embeddings.norm.weight.mul_(50)
        assert torch.isfinite(encoder(batch_of(LENGTHS))).all()


@on_such_processors
@pytest.mark.parametrize("change", ["in place", "another tensor", "a checkpoint"])
def test_changed_weights_are_noticed(change, encoder_in_int8):
    encoder, plain = encoder_in_int8()
    batch = batch_of(LENGTHS)
    for model in (encoder, plain):
        mix = model.layers[0].attention_output
        if change == "in place":
            with torch.no_grad():
                mix.weight.add_(0.1)
        elif change == "another tensor":
            mix.weight = torch.nn.Parameter(mix.weight.detach() * 2)
        else:
            model.load_hf_state_dict({name: tensor * 1.1 for name, tensor in model.hf_state_dict().items()})
    encoder.layers[1].int8_forward = None  # so that only the changed layer is seen
    with torch.inference_mode():
        torch.testing.assert_close(encoder(batch), plain(batch))


@on_such_processors
def test_where_something_is_learnt_nothing_is_in_int8(encoder_in_int8):
    encoder, plain = encoder_in_int8()
    batch = batch_of(LENGTHS)
    states = encoder(batch)
    torch.testing.assert_close(states, plain(batch))
    states.sum().backward()
    assert encoder.layers[0].query.weight.grad is not None


@on_such_processors
def test_layers_of_transformers_are_refused(encoder_of):
    encoder = load_auto_encoder(encoder_of("albert"))[0]
    with pytest.raises(
        ConfigError, match="precision int8: not for the architecture albert; use auto, fp32 or bf16"
    ):
        quantize(encoder, batch_of(LENGTHS))


def test_a_torch_without_the_products_is_told_of(encoder_of, monkeypatch):
    encoder = load_encoder(encoder_of("bert"))[0]
    monkeypatch.setattr(int8.torch, "ops", SimpleNamespace(onednn=SimpleNamespace()))
    with pytest.raises(ConfigError, match=r"precision int8: torch .* lacks its products"):
        quantize(encoder, batch_of(LENGTHS))


# Where it can be had


@pytest.mark.parametrize("abilities", [{}, {"avx2": True, "avx512_f": True}])
def test_a_processor_without_units_for_it_is_told_of(abilities, monkeypatch):
    monkeypatch.setattr(precision.torch.cpu, "get_capabilities", lambda: abilities)
    assert not has_fast_int8(CPU)
    with pytest.raises(
        ConfigError, match="precision int8 needs a processor with AVX512-VNNI or AMX; this cpu has neither"
    ):
        choose_precision("int8", CPU)


@pytest.mark.parametrize("name", ["avx512_vnni", "amx_int8"])
def test_a_processor_with_such_units(name, monkeypatch):
    monkeypatch.setattr(precision.torch.cpu, "get_capabilities", lambda: {name: True})
    assert choose_precision("int8", CPU) == ("int8", "as set")
    with pytest.raises(ConfigError, match="this cuda has neither"):
        choose_precision("int8", torch.device("cuda"))
