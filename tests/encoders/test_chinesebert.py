"""ChineseBERT against a slow reference from the formulas; names, sources of glyphs, tables of inference."""

from __future__ import annotations

import copy
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.chinesebert_folder import (
    CONFIG,
    HAN,
    PIXELS,
    VOCABULARY,
    V,
    W,
    shapes,
    weights,
    write_folder,
    write_pictures,
)

import bertune
from bertune.config.schema import DataConfig
from bertune.data.dataset import EncodedDataset
from bertune.encoders.active_vocabulary import ActiveVocabulary
from bertune.encoders.bert import Bert
from bertune.encoders.families.chinesebert_encoder import ChineseBert, EmbeddingCache
from bertune.encoders.families.glyphs import ActiveGlyphs, FrozenGlyphs, GlyphOptions
from bertune.encoders.families.registry import FAMILIES, is_native
from bertune.encoders.load import build_encoder, load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.text.pinyin import PinyinVocab, unpack_syllable
from bertune.types import EncodedExample, Numerics

FLOAT64 = SimpleNamespace(dtype=torch.float64, precision="fp32", fast_dropout=True)
TEXTS = [("大的银行成长了",), ("那些 good 书，很重要！", "我不是长江"), ("地",), ("绿行 dog 好坏？",)]
HEADS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("chinesebert") / "junnyu")


def rows_of(folder, texts=TEXTS) -> EncodedDataset:
    tokenizer = PretrainedFolder(folder).load_tokenizer(DataConfig(), 64)
    return EncodedDataset([EncodedExample((piece,)) for piece in tokenizer.encode(texts)])


def ragged_of(folder, texts=TEXTS):
    return rows_of(folder, texts).gather_texts(range(len(texts)))


# ----------------------------------------------------------------------------------------------------
# The reference: one token, one output at a time, from the formulas of the paper and the names of the release.


def linear(state, name, x):
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return torch.stack([(weight[out] * x).sum() + bias[out] for out in range(len(bias))])


def layer_norm(state, name, x):
    mean = x.sum() / len(x)
    variance = ((x - mean) ** 2).sum() / len(x)
    return (x - mean) / torch.sqrt(variance + 1e-12) * state[f"{name}.weight"] + state[f"{name}.bias"]


def first_vector(state, token, symbols, place, segment):
    e = "bert.embeddings"
    word = state[f"{e}.word_embeddings.weight"][token]
    letters = [state[f"{e}.pinyin_embeddings.embedding.weight"][symbol] for symbol in symbols]
    kernel, bias = state[f"{e}.pinyin_embeddings.conv.weight"], state[f"{e}.pinyin_embeddings.conv.bias"]
    pinyin = []
    for out in range(len(bias)):
        at = [
            (kernel[out, :, 0] * letters[k]).sum() + (kernel[out, :, 1] * letters[k + 1]).sum() + bias[out]
            for k in range(7)
        ]
        pinyin.append(torch.stack(at).max())
    glyph = linear(state, f"{e}.glyph_map", state[f"{e}.glyph_embeddings.embedding.weight"][token])
    token_vector = linear(state, f"{e}.map_fc", torch.cat([word, torch.stack(pinyin), glyph]))
    summed = (
        token_vector
        + state[f"{e}.position_embeddings.weight"][place]
        + state[f"{e}.token_type_embeddings.weight"][segment]
    )
    return layer_norm(state, f"{e}.LayerNorm", summed)


def one_layer(state, name, x):
    query, key, value = (
        [linear(state, f"{name}.attention.self.{part}", token) for token in x]
        for part in ("query", "key", "value")
    )
    size = W // HEADS
    mixed = []
    for a in range(len(x)):
        heads = []
        for h in range(HEADS):
            cut = slice(h * size, (h + 1) * size)
            scores = torch.stack(
                [(query[a][cut] * key[b][cut]).sum() / math.sqrt(size) for b in range(len(x))]
            )
            shares = torch.exp(scores) / torch.exp(scores).sum()
            heads.append(sum(shares[b] * value[b][cut] for b in range(len(x))))
        mixed.append(torch.cat(heads))
    mixed = [linear(state, f"{name}.attention.output.dense", m) for m in mixed]
    x = [
        layer_norm(state, f"{name}.attention.output.LayerNorm", m + t) for m, t in zip(mixed, x, strict=True)
    ]
    grown = [linear(state, f"{name}.intermediate.dense", t) for t in x]
    active = [g * 0.5 * (1 + torch.erf(g / math.sqrt(2))) for g in grown]
    return [
        layer_norm(state, f"{name}.output.LayerNorm", linear(state, f"{name}.output.dense", a) + t)
        for a, t in zip(active, x, strict=True)
    ]


def reference(state, ids, symbols, segments):
    """States (T, W) of one text."""
    x = [first_vector(state, *each) for each in zip(ids, symbols, range(len(ids)), segments, strict=True)]
    for n in range(2):
        x = one_layer(state, f"bert.encoder.layer.{n}", x)
    return torch.stack(x)


@pytest.mark.parametrize("active", [False, True], ids=["whole tables", "active rows"])
def test_forward_and_gradients_are_those_of_the_formulas(folder, active):
    rows, ragged = rows_of(folder), ragged_of(folder)
    encoder, _ = load_encoder(folder, GlyphOptions(trainable=True))
    if active:
        encoder.use_active_vocabulary(torch.from_numpy(rows.used_ids()))
    encoder.double().train().set_numerics(FLOAT64)
    encoder.set_dropout(0.0)
    state = {
        name: tensor.double().requires_grad_(tensor.is_floating_point() and not name.startswith("cls"))
        for name, tensor in weights().items()
    }
    expected = []
    for start, stop in zip(ragged.offsets[:-1].tolist(), ragged.offsets[1:].tolist(), strict=True):
        symbols = [unpack_syllable(s) for s in ragged.pinyin_ids[start:stop].tolist()]
        expected.append(
            reference(
                state,
                ragged.input_ids[start:stop].tolist(),
                symbols,
                ragged.token_type_ids[start:stop].tolist(),
            )
        )
    expected = torch.cat(expected)
    pull = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected * pull).sum().backward()
    found = encoder(ragged)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    (found * pull).sum().backward()
    used = torch.from_numpy(rows.used_ids())
    compared = 0
    for name, parameter in encoder.named_parameters():
        if name.endswith(".scale"):
            assert float(parameter.grad) == 0
            continue
        grad = state[f"bert.{encoder.hf_name(name)}"].grad
        if active and name in {"embeddings.word_embeddings.weight", "embeddings.glyph_embeddings.weight"}:
            assert not grad[[n for n in range(V) if n not in used.tolist()]].any()
            grad = grad[used]
        torch.testing.assert_close(parameter.grad, grad, atol=1e-9, rtol=1e-9, msg=name)
        # A key's bias moves all scores of a token alike, so it has no gradient in theory either.
        assert parameter.grad.abs().max() > 1e-6 or name.endswith("key.bias"), name
        compared += 1
    assert compared == len(shapes()) - 9  # all but pooler and language-model head


def test_numbers_of_the_golden_encoder(folder):
    """So that a change of both this file and the encoder would be seen."""
    encoder, _ = load_encoder(folder)
    with torch.no_grad():
        states = encoder.eval()(ragged_of(folder))
    assert states.shape == (37, W)
    torch.testing.assert_close(states[0, :4], torch.tensor(GOLDEN[0]), atol=2e-5, rtol=0)
    torch.testing.assert_close(states[-1, -4:], torch.tensor(GOLDEN[1]), atol=2e-5, rtol=0)


GOLDEN = ([1.722608, -0.103972, -0.717459, -0.964716], [1.26879, -1.244371, 1.550897, 0.658174])
"""By the reference above."""


# ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["junnyu", "shannonai", "by weights alone"])
def test_a_release_is_read_whole(layout, tmp_path):
    folder = write_folder(tmp_path / "m", "shannonai" if layout != "junnyu" else layout)
    if layout == "by weights alone":
        (folder / "config" / "pinyin_map.json").unlink()
    assert PretrainedFolder(folder).config["model_type"] == "chinesebert"
    encoder, report = load_encoder(folder)
    assert type(encoder) is ChineseBert
    assert report.missing_keys == []
    assert sorted(report.pooler) == ["bias", "weight"]
    assert report.unexpected_keys and all(
        name.startswith("cls.predictions.") for name in report.unexpected_keys
    )
    assert report.notes == [f"glyphs: of the checkpoint; {V * PIXELS / 1e6:.1f} M numbers, frozen"]
    for name, tensor in encoder.hf_state_dict().items():
        assert torch.equal(tensor, weights()[f"bert.{name}"]), name


def test_names_of_base_and_large_are_those_of_the_release():
    for width, layers, heads in ((768, 12, 12), (1024, 24, 16)):
        config = {"model_type": "chinesebert", "hidden_size": width, "num_hidden_layers": layers,
                  "num_attention_heads": heads,
                  "intermediate_size": 4 * width, "vocab_size": 23236}  # fmt: skip
        assert is_native(config)
        with torch.device("meta"):
            encoder = ChineseBert(config, FAMILIES["chinesebert"])
        found = {f"bert.{n}": tuple(t.shape) for n, t in encoder.hf_state_dict().items()}
        wanted = {
            n: s
            for n, s in shapes(23236, width, 4 * width, layers, 512).items()
            if not n.startswith(("cls.", "bert.pooler"))
        }
        assert found == wanted
        if width == 768:
            numbers = sum(math.prod(s) for s in found.values()) + 768 * 769  # with the pooler
            assert numbers == 147_337_984  # the size of the file on the Hub, less its language-model head


def test_safetensors_and_cut_checkpoints_and_old_norms_are_read(tmp_path):
    from safetensors.torch import save_file

    folder = write_folder(tmp_path / "m")
    (folder / "pytorch_model.bin").unlink()
    state = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in weights().items()
    }
    names = sorted(state)
    for part, some in (("a.safetensors", names[:20]), ("b.safetensors", names[20:])):
        save_file({n: state[n] for n in some}, folder / part)
    index = {n: "a.safetensors" if n in names[:20] else "b.safetensors" for n in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    encoder, report = load_encoder(folder)
    assert report.missing_keys == []
    assert torch.equal(
        encoder.hf_state_dict()["embeddings.map_fc.weight"], weights()["bert.embeddings.map_fc.weight"]
    )


def test_a_plain_bert_is_no_chinesebert(tiny):
    assert PretrainedFolder(tiny).config["model_type"] == "bert"
    assert type(load_encoder(tiny)[0]) is Bert
    assert rows_of(tiny, [("a",)]).gather_texts([0]).pinyin_ids is None


def test_it_is_never_opened_as_a_plain_bert(tmp_path):
    state = weights()
    del state["bert.embeddings.word_embeddings.weight"]
    with pytest.raises(
        bertune.ConfigError,
        match=r"holds no chinesebert that can be read: no weight 'embeddings\.word_embeddings\.weight'",
    ):
        load_encoder(write_folder(tmp_path / "words", state=state))
    with pytest.raises(bertune.ConfigError, match="holds no chinesebert"):
        load_encoder(write_folder(tmp_path / "decoder", is_decoder=True))
    with pytest.raises(bertune.ConfigError, match="holds no chinesebert"):
        build_encoder(tmp_path / "decoder")


def test_faults_of_a_checkpoint_are_one_line(tmp_path, folder):
    state = {**weights(), "bert.embeddings.glyph_map.weight": torch.zeros(W, 5)}
    with pytest.raises(
        bertune.ConfigError, match=r"other shapes .*embeddings\.glyph_map\.weight \(32, 5\)"
    ) as caught:
        load_encoder(write_folder(tmp_path / "shape", state=state))
    assert "\n" not in str(caught.value)
    with pytest.raises(bertune.ConfigError, match="pinyin_map_len is 40"):
        load_encoder(write_folder(tmp_path / "symbols", pinyin_map_len=40))
    with pytest.raises(bertune.ConfigError, match=r"other shapes .*word_embeddings"):
        load_encoder(write_folder(tmp_path / "vocabulary", vocab_size=V - 3))
    encoder, _ = load_encoder(folder)
    ragged = ragged_of(folder)
    with pytest.raises(bertune.ConfigError, match="needs the syllables of its tokens"):
        encoder(type(ragged)(ragged.input_ids, ragged.token_type_ids, ragged.offsets, ragged.lengths))
    state = weights()
    del state["bert.embeddings.map_fc.weight"]
    _, report = load_encoder(write_folder(tmp_path / "fuse", state=state))
    assert report.missing_keys == ["embeddings.map_fc.weight"]


def without_glyphs():
    return {n: t for n, t in weights().items() if "glyph_embeddings" not in n}


def test_glyphs_come_from_pictures_in_the_order_of_their_names(tmp_path):
    folder = write_folder(tmp_path / "m", "shannonai", state=without_glyphs())
    pictures = write_pictures(folder)
    encoder, report = load_encoder(folder, GlyphOptions(("some.ttf",)))
    assert report.missing_keys == []
    assert "read from 'a.npy', 'b.npy', 'c.npy'" in report.notes[0]
    assert report.notes[1:] == ["train.glyph_font has no effect, since the folder has pictures"]
    expected = np.stack(pictures, 1).reshape(V, -1)
    assert np.array_equal(
        encoder.hf_state_dict()["embeddings.glyph_embeddings.embedding.weight"].numpy(),
        expected.astype(np.float32),
    )


def test_bad_pictures_are_named(tmp_path):
    folder = write_folder(tmp_path / "m", state=without_glyphs())
    write_pictures(folder, ("a.npy", "b.npy"))
    with pytest.raises(
        bertune.ConfigError,
        match=r"glyph_embedding_dim is 1728, which is 3 fonts of 24 x 24, and there are 'a\.npy', 'b\.npy'",
    ):
        load_encoder(folder)
    write_pictures(folder, rows=V + 1)
    with pytest.raises(
        bertune.ConfigError, match=r"a\.npy: has the shape .*; pictures of this vocabulary have"
    ):
        load_encoder(folder)
    (folder / "config" / "a.npy").write_bytes(b"x")
    with pytest.raises(bertune.ConfigError, match=r"a\.npy: cannot be read as pictures"):
        load_encoder(folder)


def test_glyphs_are_drawn_from_a_font(tmp_path, monkeypatch):
    from PIL import ImageFont

    font = tmp_path / "latin.ttf"
    font.write_bytes(ImageFont.load_default(24).path.getvalue())  # the one that Pillow carries; it has no Han
    folder = write_folder(tmp_path / "m", state=without_glyphs())
    encoder, report = load_encoder(folder, GlyphOptions((str(font),)))
    assert "drawn from" in report.notes[0] and str(font) in report.notes[0]
    signs = len(HAN) + len("。，！？")
    assert (
        report.notes[1]
        == f"{signs} characters of the vocabulary are not in every font, and have no glyph there"
    )
    table = encoder.hf_state_dict()["embeddings.glyph_embeddings.embedding.weight"].view(V, 3, 24, 24)
    drawn = table[VOCABULARY.index("b")]
    assert torch.equal(drawn[0], drawn[1]) and float(drawn.max()) == 1 and float(drawn.min()) == 0
    assert drawn[0, 12, 8:16].sum() > 0 and not torch.equal(drawn, table[VOCABULARY.index("c")])
    assert (
        not table[VOCABULARY.index("[CLS]")].any()
        and not table[VOCABULARY.index("dog")].any()
        and not table[VOCABULARY.index("大")].any()
    )
    with pytest.raises(
        bertune.ConfigError, match=r"train\.glyph_font: .*vocab\.txt' cannot be read as a font"
    ):
        load_encoder(folder, GlyphOptions((str(folder / "vocab.txt"),)))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(bertune.MissingExtra, match=r"drawing glyphs needs .*pillow"):
        load_encoder(folder, GlyphOptions((str(font),)))


def test_glyphs_are_random_where_there_is_nothing_and_that_is_said(tmp_path):
    folder = write_folder(tmp_path / "m", state=without_glyphs())
    torch.manual_seed(0)
    encoder, report = load_encoder(folder)
    assert "drawn at random, since there are none" in report.notes[0]
    assert report.missing_keys == []
    table = encoder.hf_state_dict()["embeddings.glyph_embeddings.embedding.weight"]
    assert 0.015 < float(table.std()) < 0.025


def test_choices_without_effect_are_said(tiny, folder):
    assert load_encoder(tiny, GlyphOptions(trainable=True))[1].notes == [
        "train.glyphs and train.glyph_font have no effect, since a bert encoder sees no glyphs"
    ]
    assert load_encoder(tiny, GlyphOptions())[1].notes == []
    assert load_encoder(folder, GlyphOptions(("x.ttf",)))[1].notes[1:] == [
        "train.glyph_font has no effect, since the checkpoint has glyphs"
    ]


def test_frozen_glyphs_are_no_parameters_and_trained_ones_are(folder):
    frozen, _ = load_encoder(folder)
    assert isinstance(frozen.embeddings.glyph_embeddings, FrozenGlyphs)
    assert "embeddings.glyph_embeddings.weight" not in dict(frozen.named_parameters())
    assert "embeddings.glyph_embeddings.weight" in frozen.state_dict()
    trained, _ = load_encoder(folder, GlyphOptions(trainable=True))
    assert trained.get_parameter("embeddings.glyph_embeddings.weight").requires_grad
    assert torch.equal(
        trained.hf_state_dict()["embeddings.glyph_embeddings.embedding.weight"],
        frozen.state_dict()["embeddings.glyph_embeddings.weight"],
    )


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_active_rows_answer_for_the_whole_table(folder, trained):
    encoder, _ = load_encoder(folder, GlyphOptions(trainable=trained))
    encoder.eval()
    before = {n: t.clone() for n, t in encoder.hf_state_dict().items()}
    other = ragged_of(folder, [("猫车 small 房",), ("大的",)])
    with torch.no_grad():
        expected = encoder(other)
        active = encoder.use_active_vocabulary(torch.from_numpy(rows_of(folder).used_ids()))
        assert isinstance(encoder.embeddings.glyph_embeddings, ActiveVocabulary if trained else ActiveGlyphs)
        held = (
            encoder.embeddings.glyph_embeddings.weight
            if trained
            else encoder.embeddings.glyph_embeddings.active_rows
        )
        assert held.shape == (len(active.active_ids), PIXELS)
        torch.testing.assert_close(encoder.eval()(other), expected)
        with encoder.inference():
            torch.testing.assert_close(encoder(other), expected)
        torch.testing.assert_close(encoder.train()(ragged_of(folder)).shape, (37, W))
        with pytest.raises(IndexError):
            encoder(other)
    after = encoder.hf_state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)
    encoder.use_full_vocabulary()
    assert all(torch.equal(t, before[n]) for n, t in encoder.hf_state_dict().items())
    encoder.use_active_vocabulary(torch.arange(9))
    encoder.load_hf_state_dict(before)
    assert all(torch.equal(t, before[n]) for n, t in encoder.hf_state_dict().items())


def test_tables_of_inference_change_nothing(folder):
    encoder, _ = load_encoder(folder)
    encoder.eval()
    some, other = ragged_of(folder), ragged_of(folder, [("绿地银行，很重要了 small cat",), ("长长的",)])
    with torch.inference_mode():
        expected = encoder(some), encoder(other)
        with encoder.inference():
            for _ in range(2):
                for ragged, states in zip((some, other), expected, strict=True):
                    torch.testing.assert_close(encoder(ragged), states, atol=1e-5, rtol=1e-5)
            assert isinstance(encoder.embeddings.cache, EmbeddingCache)
        assert encoder.embeddings.cache is None
    encoder.prepare_inference()
    with torch.inference_mode():
        torch.testing.assert_close(encoder(other), expected[1], atol=1e-5, rtol=1e-5)
    with torch.no_grad():  # tables made in inference mode can be filled outside of it
        torch.testing.assert_close(encoder(some), expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["word_embeddings", "pinyin_embeddings", "pinyin_conv", "glyph_embeddings", "glyph_map", "fusion"]
)
def test_weights_that_change_are_noticed(folder, name):
    encoder, _ = load_encoder(folder)
    encoder.eval().prepare_inference()
    ragged = ragged_of(folder)
    with torch.no_grad():
        before = encoder(ragged)
        getattr(encoder.embeddings, name).weight.mul_(1.5)
        after = encoder(ragged)
        encoder.embeddings.cache = None
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, encoder(ragged), atol=1e-5, rtol=1e-5)


def test_a_gradient_asked_for_goes_past_the_tables(folder):
    encoder, _ = load_encoder(folder)
    encoder.prepare_inference()
    encoder(ragged_of(folder)).sum().backward()
    assert encoder.embeddings.fusion.weight.grad.abs().sum() > 0


def test_a_batch_changes_nothing_and_neither_does_bf16_much(folder):
    encoder, _ = load_encoder(folder)
    encoder.eval()
    with torch.no_grad():
        together = encoder(ragged_of(folder))
        alone = torch.cat([encoder(ragged_of(folder, [text])) for text in TEXTS])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        first = encoder(ragged_of(folder), output="first_token")
        torch.testing.assert_close(first, together[ragged_of(folder).offsets[:-1]], atol=1e-5, rtol=1e-5)
        encoder.set_numerics(Numerics("bf16"))
        assert (encoder(ragged_of(folder)).float() - together).abs().max() < 0.15


def test_dropout_is_that_of_bert(folder):
    encoder, _ = load_encoder(folder)
    ragged = ragged_of(folder)
    exact = copy.deepcopy(encoder)
    exact.set_numerics(Numerics("fp32", fast_dropout=False))
    assert not torch.equal(encoder.train()(ragged), encoder(ragged))
    for one in (encoder, exact):
        one.set_dropout(0.0)
    torch.testing.assert_close(encoder.train()(ragged), exact.train()(ragged))


def test_sound_and_shape_reach_the_states(folder):
    """A token that is read otherwise, or looks otherwise, has another state."""
    encoder, _ = load_encoder(folder)
    ragged = ragged_of(folder, [("大的银行",)])
    with torch.no_grad():
        plain = encoder.eval()(ragged)
        other = ragged.pinyin_ids.clone()
        other[4] = PinyinVocab().encode("xing2")
        assert other[4] != ragged.pinyin_ids[4]
        heard = encoder(
            type(ragged)(
                ragged.input_ids, ragged.token_type_ids, ragged.offsets, ragged.lengths, pinyin_ids=other
            )
        )
        assert (heard - plain).abs().max() > 1e-3
        encoder.embeddings.glyph_embeddings.weight[ragged.input_ids[4]] = 0
        assert (encoder(ragged) - plain).abs().max() > 1e-3


def test_vocabulary_is_what_the_file_says():
    assert len(set(VOCABULARY)) == V and len(set(HAN)) == len(HAN) and CONFIG["vocab_size"] == V
