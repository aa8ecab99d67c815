"""Our own BERT is transformers': in states, gradients, names, settings and files."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import make_encoder
from tests.encoders.test_load import NATIVE_KINDS, ragged

from bertune.encoders.architectures import HEADS, POSITIONS_AFTER_PADDING
from bertune.encoders.auto import AutoEncoder
from bertune.encoders.bert import Bert, BertConfig
from bertune.encoders.families.registry import FAMILIES, is_native
from bertune.encoders.load import build_encoder, load_encoder
from bertune.errors import ConfigError
from bertune.kernels import attention, dropout
from bertune.kernels.dropout import DROPOUT_GENERATOR
from bertune.kernels.linear import ACTIVATIONS, Linear
from bertune.types import Numerics

CASES: dict[str, tuple[str, dict[str, object]]] = {kind: (kind, {}) for kind in NATIVE_KINDS} | {
    "electra, equal widths": ("electra", {"embedding_size": 32}),
    "ernie with tasks": ("ernie", {"use_task_id": True, "task_type_vocab_size": 3}),
    "gelu_new": ("bert", {"hidden_act": "gelu_new"}),
    "relu": ("roberta", {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
    "distilbert, relu": ("distilbert", {"activation": "relu"}),
}
LENGTHS = [7, 1, 512, 33, 2, 32, 60, 1]
FLOAT64 = SimpleNamespace(dtype=torch.float64, precision="fp32", fast_dropout=True)


def config_of(hf_config) -> BertConfig:
    return BertConfig.from_hf_config(hf_config, FAMILIES[hf_config["model_type"]])


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Folders with rows of 512 tokens, made once."""
    made = {}

    def get(name):
        if name not in made:
            kind, changes = CASES[name]
            late = (
                {"pad_token_id": 1, "max_position_embeddings": 514}
                if kind in POSITIONS_AFTER_PADDING
                else {"max_position_embeddings": 512}
            )
            made[name] = make_encoder(tmp_path_factory.mktemp("bert") / kind, kind, **late, **changes)
        return made[name]

    return get


def read(folder) -> Bert:
    encoder = load_encoder(folder)[0]
    assert type(encoder) is Bert
    return encoder.eval()


def theirs(folder):
    from transformers import AutoModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModel.from_pretrained(str(folder), dtype=torch.float32, attn_implementation="eager").eval()


def batch_of(lengths=LENGTHS, seed=0):
    return ragged(lengths, seed).get_batch(range(len(lengths)), list).ragged


def states_of(model, batch) -> torch.Tensor:
    """One row at a time through transformers."""
    states = []
    for start, stop in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        given = (
            {}
            if model.config.model_type == "distilbert"
            else {"token_type_ids": batch.token_type_ids[None, start:stop]}
        )
        states.append(model(input_ids=batch.input_ids[None, start:stop], **given).last_hidden_state[0])
    return torch.cat(states)


def gradients_of(model, states: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a weighted sum of the states, by name."""
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float32)
    model.zero_grad()
    (states * weights.to(states.dtype)).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def base_state(model) -> dict[str, torch.Tensor]:
    return {n: t for n, t in model.state_dict().items() if not n.startswith("pooler")}


@pytest.mark.parametrize("name", CASES)
def test_states(name, folder_of):
    encoder, batch = read(folder_of(name)), batch_of()
    assert encoder.max_positions == 512
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(batch), states_of(theirs(folder_of(name)), batch), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("name", CASES)
def test_gradients(name, folder_of):
    encoder, model, batch = read(folder_of(name)), theirs(folder_of(name)), batch_of()
    ours = gradients_of(encoder, encoder(batch))
    expected = gradients_of(model, states_of(model, batch))
    assert {encoder.hf_name(n) for n in ours} == set(expected)
    assert ours.keys() == dict(encoder.named_parameters()).keys()
    for name_, gradient in ours.items():
        there = expected[encoder.hf_name(name_)]
        if name_.endswith(
            "key.bias"
        ):  # always 0 but for rounding: a constant on all keys of a row changes no share
            largest = expected[encoder.hf_name(name_.replace("key", "query"))].abs().max()
        else:
            largest = there.abs().max()
        assert (gradient - there).abs().max() < 1e-5 * largest, name_


@pytest.mark.parametrize("name", CASES)
def test_states_and_gradients_in_float64(name, folder_of):
    """So that rounding hides nothing."""
    encoder, model, batch = (
        read(folder_of(name)).double(),
        theirs(folder_of(name)).double(),
        batch_of([7, 1, 100, 33, 2]),
    )
    encoder.set_numerics(FLOAT64)
    ours, expected = encoder(batch), states_of(model, batch)
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-12)
    ours, expected = gradients_of(encoder, ours), gradients_of(model, expected)
    for name_, gradient in ours.items():
        there = expected[encoder.hf_name(name_)]
        torch.testing.assert_close(
            gradient, there, rtol=0, atol=1e-11 * max(float(there.abs().max()), 1), msg=name_
        )


@pytest.mark.parametrize("lengths", [LENGTHS, [1, 1, 1], [40]], ids=["mixed", "single tokens", "one row"])
@pytest.mark.parametrize("name", CASES)
def test_first_tokens_alone(name, lengths, folder_of):
    encoder, batch = read(folder_of(name)), batch_of(lengths)
    whole, alone = encoder(batch)[batch.offsets[:-1]], encoder(batch, output="first_token")
    assert alone.shape == (len(lengths), 32)
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-5)
    whole, alone = gradients_of(encoder, whole), gradients_of(encoder, alone)
    assert whole.keys() == alone.keys()
    for name_, gradient in alone.items():
        there = whole[name_]
        largest = whole[name_.replace("key.bias", "query.bias")].abs().max()
        assert (gradient - there).abs().max() <= 1e-5 * largest + 1e-9, name_


def test_first_tokens_alone_in_float64(folder_of):
    encoder, batch = read(folder_of("bert")).double(), batch_of([7, 1, 100, 33, 2])
    encoder.set_numerics(FLOAT64)
    whole, alone = encoder(batch)[batch.offsets[:-1]], encoder(batch, output="first_token")
    torch.testing.assert_close(alone, whole, atol=1e-13, rtol=1e-13)
    whole, alone = gradients_of(encoder, whole), gradients_of(encoder, alone)
    for name, gradient in alone.items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-10, atol=1e-11, msg=name)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize("kind", NATIVE_KINDS)
def test_dropout_is_where_transformers_has_it(kind, fast, tmp_path, monkeypatch):
    """As often, of as many values, at the rates of config.json."""
    names = (
        ("dropout", "attention_dropout")
        if kind == "distilbert"
        else ("hidden_dropout_prob", "attention_probs_dropout_prob")
    )
    folder = make_encoder(tmp_path / kind, kind, **dict(zip(names, (0.125, 0.25), strict=True)))
    encoder, model, batch = read(folder).train(), theirs(folder).train(), batch_of([32])
    calls: list[tuple[float, int]] = []
    plain, attends, keeps = (
        torch.nn.functional.dropout,
        attention.scaled_dot_product_attention,
        dropout.draw_keep_mask,
    )

    def dropped(x, p=0.5, training=True, inplace=False):
        if training:
            calls.append((p, x.numel()))
        return plain(x, p, training, inplace)

    def attended(q, k, v, **given):
        calls.append((given["dropout_p"], q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]))
        return attends(q, k, v, **given)

    def kept(shape, rate):
        calls.append((rate, torch.Size(shape).numel()))
        return keeps(shape, rate)

    monkeypatch.setattr(torch.nn.functional, "dropout", dropped)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", attended)
    for module in (dropout, attention):
        monkeypatch.setattr(module, "draw_keep_mask", kept)
    states_of(model, batch)
    expected, calls[:] = list(calls), []
    encoder.set_numerics(Numerics(fast_dropout=fast))
    encoder(batch)
    assert len(expected) > 2
    assert calls == expected


def test_training_draws_and_evaluation_does_not(folder_of):
    encoder, batch = read(folder_of("bert")), batch_of([7, 40])
    DROPOUT_GENERATOR.seed(1)
    before = DROPOUT_GENERATOR.get_state()
    assert torch.equal(encoder(batch), encoder(batch))
    assert DROPOUT_GENERATOR.get_state() == before
    encoder.train()
    first, second = encoder(batch), encoder(batch)
    assert not torch.equal(first, second)
    DROPOUT_GENERATOR.seed(1)
    assert torch.equal(encoder(batch), first)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - {"none"}))
def test_activations(name):
    from transformers.activations import ACT2FN

    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), ACT2FN[name](x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", NATIVE_KINDS)
def test_what_config_leaves_out_is_what_transformers_makes_of_it(kind):
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind)
    assert config_of({"model_type": kind}) == config_of(config.to_dict())
    with torch.device("meta"):
        ours, model = Bert({"model_type": kind}, FAMILIES[kind]), AutoModel.from_config(config)
    expected = {n: p.shape for n, p in model.named_parameters() if not n.startswith("pooler")}
    assert {ours.hf_name(n): p.shape for n, p in ours.named_parameters()} == expected
    shape = ours.config
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {shape.layer_norm_eps}
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {
        shape.hidden_dropout,
        shape.attention_dropout,
    }
    assert (shape.num_heads, shape.initializer_range) == (
        config.num_attention_heads,
        config.initializer_range,
    )
    assert shape.activation == (config.activation if kind == "distilbert" else config.hidden_act)
    assert shape.first_position == (config.pad_token_id + 1 if kind in POSITIONS_AFTER_PADDING else 0)
    assert ours.hf_class == type(model).__name__
    assert ours.prefix == f"{model.base_model_prefix}."


@pytest.mark.parametrize("name", CASES)
def test_settings_that_are_null_count_as_left_out(name, folder_of):
    config = json.loads((folder_of(name) / "config.json").read_text())
    assert config_of({**config, "initializer_range": None}) == config_of(
        {**config, "initializer_range": 0.02}
    )


NOT_OURS = {
    "decoder": {"is_decoder": True},
    "cross attention": {"is_decoder": True, "add_cross_attention": True},
    "activation": {"hidden_act": "quick_gelu"},
    "no activation": {"hidden_act": "linear"},
}


@pytest.mark.parametrize("changes", NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_not_ours_goes_through_transformers(changes, tiny, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    assert is_native(config)
    assert is_native({**config, "position_embedding_type": "absolute", "is_decoder": False})
    assert not is_native({**config, "position_embedding_type": "relative_key"})  # refused, by anyone
    config |= changes
    assert not is_native(config)
    (folder / "config.json").write_text(json.dumps(config))
    encoder = load_encoder(folder)[0]
    assert type(encoder) is AutoEncoder
    assert type(build_encoder(folder)) is AutoEncoder
    with torch.no_grad():
        assert encoder.eval()(batch_of([5, 9])).shape == (14, 32)


@pytest.mark.parametrize("name", ["none", "bogus", ""])
def test_an_activation_that_nobody_knows(name, tiny, tmp_path):
    """Transformers has none of these, so a config.json that says so is damaged."""
    folder = with_config_of(tiny, tmp_path / "other")
    shutil.copy(tiny / "model.safetensors", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": name}))
    for opens in (load_encoder, build_encoder):
        with pytest.raises(ConfigError):
            opens(folder)


def test_kinds_that_are_not_ours():
    assert not any(
        is_native({"model_type": kind})
        for kind in ("albert", "mpnet", "deberta", "deberta-v2", "megatron-bert", "", None)
    )
    assert not is_native({})
    assert all(is_native({"model_type": kind}) for kind in FAMILIES)


# Files


def expected_of(folder) -> dict[str, torch.Tensor]:
    return base_state(theirs(folder))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert {t.dtype for t in found.values()} == {torch.float32}
    assert [
        n for n in expected if found[n].dtype != expected[n].dtype or not torch.equal(found[n], expected[n])
    ] == []


def with_config_of(folder, new):
    new.mkdir()
    shutil.copy(folder / "config.json", new)
    return new


def in_parts(state: dict[str, torch.Tensor], folder, suffix: str, write) -> None:
    """Cut a checkpoint into 3 files with an index, as transformers does."""
    names = sorted(state)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    where = {name: f"{stem}-{n % 3 + 1:05}-of-00003.{suffix}" for n, name in enumerate(names)}
    for file in set(where.values()):
        write({n: state[n] for n in names if where[n] == file}, folder / file)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in state.items()
    }
    assert renamed.keys() != state.keys()
    return renamed


def old_zip(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert path.read_bytes()[:2] != b"PK"


WRITERS = {
    "safetensors": lambda state, folder: save_file(state, folder / "model.safetensors"),
    "safetensors, cut": lambda state, folder: in_parts(state, folder, "safetensors", save_file),
    "bin": lambda state, folder: torch.save(state, folder / "pytorch_model.bin"),
    "bin, before 1.6": lambda state, folder: old_zip(state, folder / "pytorch_model.bin"),
    "bin, cut": lambda state, folder: in_parts(state, folder, "bin", torch.save),
    "gamma and beta": lambda state, folder: torch.save(old_names(state), folder / "pytorch_model.bin"),
    "with buffers": lambda state, folder: save_file(
        {**state, "embeddings.position_ids": torch.arange(64)[None]}, folder / "model.safetensors"
    ),
}


@pytest.mark.parametrize("prefix", ["with a head", "alone"])
@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("kind", ["bert", "electra", "xlm-roberta"])
def test_every_form_of_a_checkpoint_is_read(kind, form, prefix, encoder_of, tmp_path):
    source, folder = encoder_of(kind), with_config_of(encoder_of(kind), tmp_path / "new")
    state = load_file(source / "model.safetensors")
    expected = expected_of(source)
    start = f"{FAMILIES[kind].base_model_prefix}."
    rest = sorted(n for n in state if not n.startswith(start))
    assert rest
    if prefix == "alone":
        state, rest = {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}, []
    WRITERS[form](state, folder)
    encoder, report = load_encoder(folder)
    assert type(encoder) is Bert
    same(encoder.hf_state_dict(), expected)
    assert report.missing_keys == []
    assert report.unexpected_keys == rest
    assert report.pooler == {}


@pytest.mark.parametrize("kind", NATIVE_KINDS)
def test_folders_that_transformers_saved(kind, encoder_of, tmp_path):
    """Whole, cut, with and without the words before the names."""
    from transformers import AutoModelForSequenceClassification

    expected = expected_of(encoder_of(kind))
    model = theirs(encoder_of(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with_head = AutoModelForSequenceClassification.from_pretrained(
            str(encoder_of(kind)), dtype=torch.float32
        )
    for n, (saved, size) in enumerate(
        [(model, "50GB"), (model, "30KB"), (with_head, "50GB"), (with_head, "30KB")]
    ):
        folder = tmp_path / str(n)
        saved.save_pretrained(folder, max_shard_size=size)
        assert (folder / "model.safetensors.index.json").exists() == (size == "30KB")
        encoder, report = load_encoder(folder)
        assert type(encoder) is Bert
        same(encoder.hf_state_dict(), expected)
        assert report.missing_keys == []
        assert not any(name in expected for name in report.unexpected_keys)


@pytest.mark.parametrize("kind", ["bert", "ernie"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_weights_of_any_precision_become_fp32(kind, dtype, encoder_of, tmp_path):
    model = theirs(encoder_of(kind))
    expected = {n: t.to(dtype).float() for n, t in base_state(model).items()}
    pooler = {n: t.to(dtype).float() for n, t in model.pooler.dense.state_dict().items()}
    model.to(dtype).save_pretrained(tmp_path / "rough")
    encoder, report = load_encoder(tmp_path / "rough")
    same(encoder.hf_state_dict(), expected)
    assert report.unexpected_keys == []  # the pooler is for the head
    same(report.pooler, pooler)


@pytest.mark.parametrize("name", CASES)
def test_an_empty_encoder_takes_a_checkpoint(name, folder_of):
    encoder, empty = read(folder_of(name)), build_encoder(folder_of(name))
    expected = expected_of(folder_of(name))
    same(encoder.hf_state_dict(), expected)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.fill_(float("nan"))
    empty.load_hf_state_dict(encoder.hf_state_dict())
    same(empty.hf_state_dict(), expected)
    batch = batch_of([5, 40])
    with torch.no_grad():
        assert torch.equal(empty.eval()(batch), encoder(batch))
    assert (
        empty.hf_config() == encoder.hf_config() == json.loads((folder_of(name) / "config.json").read_text())
    )
    encoder.hf_config()["model_type"] = "changed"
    assert encoder.hf_config()["model_type"] == CASES[name][0]


LOST = [
    "encoder.layer.1.output.dense.weight",
    "encoder.layer.0.output.LayerNorm.weight",
    "encoder.layer.0.attention.self.key.bias",
]


def test_missing_weights_are_drawn_and_listed(tiny, tmp_path):
    folder = with_config_of(tiny, tmp_path / "less")
    state = load_file(tiny / "model.safetensors")
    for name in LOST:
        del state[f"bert.{name}"]
    save_file(state, folder / "model.safetensors")
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        encoder, report = load_encoder(folder)
        assert report.missing_keys == sorted(LOST)
        found.append(encoder.hf_state_dict())
    kept = {n: t for n, t in expected_of(tiny).items() if n not in LOST}
    same({n: t for n, t in found[0].items() if n in kept}, kept)
    drawn, ones, zeros = (found[0][name] for name in LOST)
    assert drawn.std().item() == pytest.approx(0.02, rel=0.1)
    assert abs(drawn.mean().item()) < 0.002
    assert (ones == 1).all()
    assert (zeros == 0).all()
    assert torch.equal(found[1][LOST[0]], drawn)
    assert not torch.equal(found[2][LOST[0]], drawn)


def test_wrong_shapes_are_named(tiny, tmp_path):
    folder = with_config_of(tiny, tmp_path / "wrong")
    config = json.loads((folder / "config.json").read_text())
    shutil.copy(tiny / "model.safetensors", folder)
    for setting, value, named in (
        ("intermediate_size", 65, r"encoder\.layer\.0\.intermediate\.dense\.weight \(64, 32\)"),
        ("vocab_size", 7, r"embeddings\.word_embeddings\.weight"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, setting: value}))
        with pytest.raises(ConfigError, match=named):
            load_encoder(folder)


@pytest.mark.parametrize("heads", [0, 5, 64])
def test_widths_that_heads_cannot_share(heads, tiny, tmp_path):
    folder = with_config_of(tiny, tmp_path / "wrong")
    shutil.copy(tiny / "model.safetensors", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": heads}))
    for opens in (load_encoder, build_encoder):
        with pytest.raises(ConfigError, match=r"config\.json"):
            opens(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": "many"},
        {"vocab_size": -3},
        {"num_hidden_layers": "2"},
        {"max_position_embeddings": [512]},
    ],
)
def test_a_config_that_describes_nothing(wrong, tiny, tmp_path):
    folder = with_config_of(tiny, tmp_path / "wrong")
    shutil.copy(tiny / "model.safetensors", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_encoder(folder)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def damage(kind: str, folder, state) -> None:
    """Make a folder whose weights cannot be read."""
    safe, old, index = (
        folder / "model.safetensors",
        folder / "pytorch_model.bin",
        folder / "model.safetensors.index.json",
    )
    if kind == "none":
        return
    if kind.startswith("safetensors"):
        save_file(state, safe)
        cut(safe) if kind.endswith("cut") else safe.write_bytes(
            b"" if kind.endswith("empty") else b"<html>" * 50
        )
    elif kind.startswith("bin"):
        (old_zip if "old" in kind else torch.save)(state, old)
        if kind.endswith("cut"):
            cut(old)
        elif kind.endswith("tensor"):
            torch.save(torch.zeros(3), old)
        elif kind.endswith("list"):
            torch.save([torch.zeros(3)], old)
        elif kind.endswith("code"):
            torch.save({"x": SimpleNamespace()}, old)
        else:
            old.write_bytes(b"" if kind.endswith("empty") else b"<html>" * 50)
    else:
        in_parts(state, folder, "safetensors", save_file)
        if kind == "index, part missing":
            (folder / "model-00002-of-00003.safetensors").unlink()
        elif kind == "index, part cut":
            cut(folder / "model-00002-of-00003.safetensors")
        elif kind == "index, no JSON":
            cut(index)
        else:
            index.write_text(
                {"index, no map": "{}", "index, a list": "[]", "index, map a list": '{"weight_map": []}'}[
                    kind
                ]
            )


DAMAGES = [
    "none", "safetensors cut", "safetensors empty", "safetensors html", "bin cut", "bin empty",
    "bin html", "bin old cut", "bin tensor",
    "bin list", "bin code", "index, part missing", "index, part cut", "index, no JSON", "index, no map",
    "index, a list", "index, map a list",
]  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_named(kind, tiny, tmp_path):
    folder = with_config_of(tiny, tmp_path / "damaged")
    damage(kind, folder, load_file(tiny / "model.safetensors"))
    with pytest.raises(ConfigError, match="damaged"):
        load_encoder(folder)


def test_a_checkpoint_of_another_kind_is_refused(tiny, encoder_of, tmp_path):
    folder = with_config_of(tiny, tmp_path / "other")
    shutil.copy(encoder_of("albert") / "model.safetensors", folder)
    with pytest.raises(ConfigError):
        load_encoder(folder)


# Precision


@pytest.mark.parametrize("name", CASES)
def test_bf16_is_near_fp32(name, folder_of):
    encoder, batch = read(folder_of(name)), batch_of([7, 1, 100, 33, 2, 60])
    exact = encoder(batch)
    gradients = gradients_of(encoder, exact)
    encoder.set_numerics(Numerics("bf16"))
    rough = encoder(batch)
    assert rough.dtype == torch.bfloat16
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert 0 < (rough.float() - exact).norm() < 0.02 * exact.norm()
    for name_, gradient in gradients_of(encoder, rough.float()).items():
        assert gradient.dtype == torch.float32
        if not name_.endswith("key.bias"):  # rounding alone
            assert torch.cosine_similarity(gradient.flatten(), gradients[name_].flatten(), 0) > 0.99, name_
    encoder.set_numerics(Numerics("fp32"))
    assert torch.equal(encoder(batch), exact)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_inference_changes_nothing_and_leaves_nothing(name, precision, folder_of):
    """No bit differs in fp32; in bf16 rounding comes later, so the result may be nearer to fp32."""
    encoder, batch = read(folder_of(name)), batch_of([7, 1, 100, 33, 2, 60])
    with torch.inference_mode():
        exact = encoder(batch)
        encoder.set_numerics(Numerics(precision))
        before = encoder(batch), encoder(batch, output="first_token")
        with encoder.inference():
            assert all(
                module.prepared is not None for module in encoder.modules() if isinstance(module, Linear)
            )
            within = encoder(batch), encoder(batch, output="first_token")
        after = encoder(batch), encoder(batch, output="first_token")
    for one, two, three in zip(before, within, after, strict=True):
        assert torch.equal(one, three)
        if precision == "fp32":
            assert torch.equal(one, two)
        else:
            assert two.dtype == torch.bfloat16
            assert (two.float() - one.float()).norm() < 0.01 * one.float().norm()
    assert (within[0].float() - exact).norm() < 1.2 * (before[0].float() - exact).norm() + 1e-9
    with torch.no_grad():
        encoder.layers[1].intermediate.weight.mul_(1.5)  # a stale copy would not know
        changed = encoder(batch)
        assert (changed - before[0]).norm() > 0.02 * before[0].norm()
        with encoder.inference():
            assert (encoder(batch) - changed).norm() < 0.01 * changed.norm()
    encoder(batch).float().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_inference_inside_inference(folder_of):
    """The inner block ends, the outer one goes on."""
    encoder, batch = read(folder_of("bert")), batch_of([7, 30])
    linears = [module for module in encoder.modules() if isinstance(module, Linear)]
    with torch.no_grad(), encoder.inference():
        before = encoder(batch)
        with encoder.inference():
            assert torch.equal(encoder(batch), before)
        assert all(linear.prepared is not None for linear in linears)
        assert torch.equal(encoder(batch), before)
    assert all(linear.prepared is None for linear in linears)


def test_inference_ends_with_an_error(folder_of):
    encoder = read(folder_of("bert"))

    def fails():
        with encoder.inference():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    linears = [module for module in encoder.modules() if isinstance(module, Linear)]
    assert len(linears) == 12
    assert all(linear.prepared is None for linear in linears)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_prepared_layer(name, dtype):
    """Rows of any number, none among them; the same as without, as far as the precision goes."""
    random = torch.Generator().manual_seed(0)
    layer = Linear(48, 24, name)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(24, 48, generator=random) / 7)
        layer.bias.copy_(torch.randn(24, generator=random))
        layer.prepare_inference(dtype)
        for rows in (1, 2, 63, 0):
            x = torch.randn(rows, 48, generator=random).to(dtype)
            found = layer(x)
            exact = ACTIVATIONS[name](x.double() @ layer.weight.double().T + layer.bias.double())
            assert (found.shape, found.dtype) == ((rows, 24), dtype)
            assert (found - exact).norm() <= (1e-6 if dtype == torch.float32 else 0.01) * exact.norm()
        layer.end_inference()
        assert layer.prepared is None


def test_a_layer_is_not_drawn_twice():
    """What is read need not be drawn; `initialize` draws what is not."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    made = Bert(
        {
            "model_type": "bert",
            "vocab_size": 50,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 8,
        },
        FAMILIES["bert"],
    )
    assert torch.equal(torch.get_rng_state(), before)
    made.init_weights([name for name, _ in made.named_parameters()])
    for name, parameter in made.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == float(name.endswith("norm.weight"))).all(), name
        else:
            assert 0 < parameter.std() < 0.03, name


def test_segments_where_the_encoder_knows_one_kind(tmp_path):
    """A Chinese RoBERTa comes with BERT's tokenizer, which numbers the second text 1."""
    folder = make_encoder(tmp_path / "one", "roberta", type_vocab_size=1, pad_token_id=1)
    batch = batch_of([9, 4])
    assert batch.token_type_ids.max() == 1
    plain = dataclasses.replace(batch, token_type_ids=torch.zeros_like(batch.token_type_ids))
    with torch.no_grad():
        torch.testing.assert_close(
            read(folder)(batch), states_of(theirs(folder), plain), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_decoder_sees_what_stands_before_alone(kind, tmp_path):
    folder = make_encoder(tmp_path / kind, kind, is_decoder=True)
    encoder, _ = load_encoder(folder)
    assert isinstance(encoder, AutoEncoder)
    batch = batch_of([9, 4, 1])
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.eval()(batch), states_of(theirs(folder), batch), atol=1e-5, rtol=1e-5
        )


def test_distilbert_answers_to_the_names_of_bert_too():
    assert config_of(
        {"model_type": "distilbert", "num_attention_heads": 6, "num_hidden_layers": 4, "layer_norm_eps": 1e-3}
    ) == config_of({"model_type": "distilbert", "n_heads": 6, "n_layers": 4})


def test_dropout_of_the_head_where_config_is_silent(tmp_path):
    from transformers import AutoConfig

    for kind in NATIVE_KINDS:
        written = json.loads((make_encoder(tmp_path / kind, kind) / "config.json").read_text())
        for name in HEADS[kind].dropout_keys:
            written.pop(name, None)
        (tmp_path / kind / "config.json").write_text(json.dumps(written))
        ours, expected = (
            read(tmp_path / kind).hf_config(),
            AutoConfig.from_pretrained(str(tmp_path / kind)).to_dict(),
        )
        assert [ours.get(name) for name in HEADS[kind].dropout_keys] == [
            expected.get(name) for name in HEADS[kind].dropout_keys
        ], kind


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prepared_weights_that_change_are_noticed(precision, folder_of):
    """Who trains a model that was prepared for good gets gradients, and the new weights afterwards."""
    encoder, batch = read(folder_of("bert")), batch_of([9, 4, 40])
    encoder.set_numerics(Numerics(precision))
    encoder.prepare_inference()
    states = encoder(batch)
    assert states.requires_grad
    states.float().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    with torch.no_grad():
        before = encoder(batch)
        for parameter in encoder.layers[0].parameters():
            parameter.mul_(1.5)
        after = encoder(batch)
        encoder.prepare_inference()
        again = encoder(batch)
    assert (after - before).abs().max() > 0.05
    torch.testing.assert_close(
        after.float(), again.float(), atol=0.1 if precision == "bf16" else 1e-6, rtol=0
    )


@pytest.mark.parametrize("wrong", [{"model_type": ["bert"]}, {"hidden_act": {"name": "gelu"}}])
def test_values_that_are_no_names(wrong, tiny, tmp_path):
    folder = with_config_of(tiny, tmp_path / "new")
    (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), **wrong})
    )
    with pytest.raises(ConfigError):
        load_encoder(folder)
