"""Filling masks: the numbers of transformers' fill-mask pipeline, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import chinesebert_folder
from tests.conftest import ENGLISH, make_encoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, pipeline

import bertune
from bertune.artifact.read import read_masked_lm
from bertune.errors import ArtifactError, ConfigError, DataError

KINDS = [
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "ernie",
    "distilbert",
    "albert",
    "mpnet",
    "megatron-bert",
    "deberta",
    "deberta-v2",
    "modernbert",
    "roformer",
]
ONE, TWO = "good [MASK] is a 很 big car", "[MASK] dog [MASK] red"


def assert_same(found, expected):
    """Compare lists of dicts, or lists of such lists."""
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
        return
    assert found == {**expected, "score": pytest.approx(expected["score"], abs=1e-6)}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_pipeline_of_transformers(kind, encoder_of):
    folder = encoder_of(kind)
    ours, theirs = bertune.load(folder, precision="fp32"), pipeline("fill-mask", str(folder))
    texts = [ONE, TWO, "[MASK]", "a good dog , a [MASK] cat and a very bad small house . " * 2]
    for text in texts[:3]:
        assert_same(ours.fill(text, k=7), theirs(text, top_k=7))
        assert_same(ours.fill(text, targets=["dog", "cat"]), theirs(text, targets=["dog", "cat"]))
    assert_same(ours.fill(texts, 3), theirs(texts, top_k=3))
    assert ours.fill([ONE], 2) == [ours.fill(ONE, 2)]
    assert ours.num_truncated_rows == 0


def byte_level(corpus: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers.decoders import ByteLevel

    tokenizer.decoder = ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=300, special_tokens=special))
    return tokenizer


def unigram(corpus: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    from tokenizers.decoders import Metaspace

    tokenizer.decoder = Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, unigram])
def test_tokenizers_with_another_mask_token(make, tmp_path):
    rust = make([ENGLISH, "the big dog and the small cat", "a red house is not very great"] * 4)
    ids = {token: rust.token_to_id(token) for token in ("<s>", "</s>")}
    rust.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=list(ids.items()))
    folder = make_encoder(tmp_path / "model", "roberta", vocab_size=rust.get_vocab_size(), pad_token_id=1)
    PreTrainedTokenizerFast(
        tokenizer_object=rust, mask_token="<mask>", unk_token="<unk>", pad_token="<pad>", bos_token="<s>",
        eos_token="</s>", cls_token="<s>", sep_token="</s>",
    ).save_pretrained(folder)  # fmt: skip
    ours, theirs = bertune.load(folder, precision="fp32"), pipeline("fill-mask", str(folder))
    for text in ("the big <mask> is red", "<mask> dog <mask>"):
        expected = theirs(text, top_k=6)
        assert_same(ours.fill(text, 6), expected)
        assert_same(ours.fill(text.replace("<mask>", "[MASK]"), 6), expected)


def test_bert_takes_the_other_mask_too_but_not_beside_its_own(tiny):
    model = bertune.load(tiny)
    assert model.fill("good <mask> dog") == model.fill("good [MASK] dog")
    assert isinstance(model.fill("good <mask> [MASK] dog")[0], dict)  # one mask, and a word in signs


def test_a_text_does_not_depend_on_its_neighbours(tiny):
    model = bertune.load(tiny, precision="fp32")
    texts = [ONE, TWO, "the [MASK] cat", ONE]
    assert_same(model.fill(texts), [model.fill(text) for text in texts])


def test_a_pretrained_folder_is_filled_as_transformers_fills_it(tiny, tmp_path, write):
    rows = write(
        "t.txt", "".join(f"the {a} {b} is good\n" for a in ("big", "red") for b in ("dog", "cat")) * 3
    )
    out = tmp_path / "out"
    bertune.train(
        "pretrain", [f"data.train={rows}", f"model={tiny}", f"out={out}", "train.max_steps=3"], quiet=True
    )
    ours, theirs = bertune.load(out, precision="fp32"), pipeline("fill-mask", str(out))
    for text in (ONE, TWO):
        assert_same(ours.fill(text, 4), theirs(text, top_k=4))
    assert read_masked_lm(out).run_config.task == "pretrain"


@pytest.fixture(scope="module")
def chinesebert(tmp_path_factory):
    state = chinesebert_folder.weights()
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].clone()
    return chinesebert_folder.write_folder(tmp_path_factory.mktemp("chinesebert") / "model", state=state)


def test_chinesebert_fills_without_the_sound_of_the_mask(chinesebert):
    model = bertune.load(chinesebert, precision="fp32")
    encoding = model.tokenizer.encode([("我[MASK]很好",)])[0]
    assert [bool(pinyin) for pinyin in encoding.pinyin_ids] == [False, True, False, True, True, False]
    found = model.fill("我[MASK]很好", 3)
    assert found[0]["score"] > found[1]["score"] > found[2]["score"] > 0
    assert found[0]["sequence"] == model.tokenizer.decode(
        [*encoding.input_ids[:2], found[0]["token"], *encoding.input_ids[3:]], skip_special_tokens=True
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no mask", r"^texts:1: no mask in 'no mask'; write \[MASK\]"),
        ("", "^texts:1: expected a text that is not empty, got ''"),
        (None, "expected a text that is not empty, got None"),
        ("a \ud800 [MASK]", "half a character"),
        (
            "dog " * 80 + "[MASK]",
            "^texts:1: a mask is cut off: the text has 83 tokens, and the model reads 64",
        ),
        ("[MASK] " + "dog " * 80 + "[MASK]", "a mask is cut off"),
    ],
)
def test_texts_that_cannot_be_filled(text, message, tiny):
    with pytest.raises(DataError, match=message):
        bertune.load(tiny).fill([text])


def test_what_is_no_text_at_all(tiny):
    model = bertune.load(tiny)
    assert model.fill([]) == []
    with pytest.raises(DataError, match=r"fill takes a text or a list of texts, got int \(5\)"):
        model.fill(5)


def test_a_long_text_with_its_mask_at_the_beginning_is_cut(tiny):
    model = bertune.load(tiny)
    assert model.fill("the [MASK] is " + "dog " * 80, 1)[0]["sequence"].startswith("the ")
    assert model.num_truncated_rows == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k: 0 is not from 1 to 96"),
        ({"k": 97}, "k: 97 is not from 1 to 96, the tokens of the vocabulary"),
        ({"k": True}, "k: True is not"),
        ({"k": "5"}, "k: '5' is not"),
        ({"targets": []}, "targets: there are none"),
        ({"targets": ["dogs"]}, "targets: 'dogs' is 2 tokens: dog ##s; a mask stands for one token"),
        ({"targets": "犬"}, "targets: '犬' is not in the vocabulary"),
        ({"targets": [3]}, "targets: expected texts, got 3"),
    ],
)
def test_settings_that_cannot_be(settings, message, tiny):
    with pytest.raises(ConfigError, match=message):
        bertune.load(tiny).fill("a [MASK]", **settings)


def test_targets_are_chosen_among_all_tokens(tiny):
    model = bertune.load(tiny, precision="fp32")
    every = {filling["token"]: filling["score"] for filling in model.fill("a [MASK]", 96)}
    assert sum(every.values()) == pytest.approx(1)
    found = model.fill("a [MASK]", targets=["dog", "##s", "dog", "Cat"])
    assert len(found) == 3  # each once; "Cat" is one token, written in another way
    assert all(every[filling["token"]] == pytest.approx(filling["score"]) for filling in found)


def copy_without(folder: Path, to: Path, part: str) -> Path:
    shutil.copytree(folder, to)
    state = load_file(to / "model.safetensors")
    left = {name: tensor for name, tensor in state.items() if part not in name}
    save_file(left, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_folders_without_a_head(tiny, tmp_path, encoder_of):
    encoder = copy_without(tiny, tmp_path / "encoder", "cls.")
    with pytest.raises(ArtifactError, match=r"no head for masked tokens; pretrain it first: bertune train"):
        read_masked_lm(encoder)
    with pytest.raises(ArtifactError, match=r"holds no bertune.json"):  # for all other verbs
        bertune.load(encoder)
    part = copy_without(tiny, tmp_path / "part", "predictions.bias")
    with pytest.raises(ArtifactError, match=r"lacks the weights 'cls.predictions.bias'"):
        bertune.load(part)
    with pytest.raises(ArtifactError, match="no such folder"):
        read_masked_lm(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="model_code"):
        read_masked_lm(tiny, model_code="yes")


def test_models_of_other_tasks_say_what_they_are(tiny, tmp_path, write):
    rows = write("t.csv", "text,label\n" + "".join(f"dog {n},{'ab'[n % 2]}\n" for n in range(10)))
    out = tmp_path / "out"
    settings = [f"data.train={rows}", f"model={tiny}", f"out={out}", "train.max_steps=1"]
    bertune.train("classify", settings, quiet=True)
    with pytest.raises(ArtifactError, match="no head for masked tokens: it is a model of task classify"):
        read_masked_lm(out)


def test_a_decoder_of_its_own_is_refused(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    decoder = torch.zeros_like(state["bert.embeddings.word_embeddings.weight"])
    save_file({**state, "cls.predictions.decoder.weight": decoder}, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="decoder of its own") as caught:
        bertune.load(folder)
    assert "train.head" not in str(caught.value) and not str(caught.value).startswith("model:")


def test_a_mask_token_that_is_a_word_of_the_vocabulary(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["[unused1]"] = tokenizer["model"]["vocab"].pop("9")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    model = bertune.load(folder, precision="fp32")
    expected = model.fill("a [MASK] dog", 3)
    model.__dict__.pop("mask_id"), model.__dict__.pop("mask_token")
    model.task.options = model.task.options.model_copy(update={"mask_token": "[unused1]"})
    found = model.fill("a [MASK] dog", 3)
    assert [len(found), len(expected)] == [3, 3]
    assert model.fill("a [unused1] dog", 3) == found != expected
