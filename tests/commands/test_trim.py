"""bertune.trim: a folder with fewer tokens, in bertune and in other tools."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.sentence_folders import open_sentence_folder, save_sentence_folder
from tests.small_tokenizers import SENTENCES, make_masked_lm, unigram, wordpiece

import bertune
import bertune.artifact.trim
from bertune.encoders.load import load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.errors import BertuneError, ConfigError, DataError

TEXTS = SENTENCES[:3]
"""What vocabularies are cut to."""
NEW_TEXTS = ["walkers and talkers", "深度学习 vs. the dog", "a zebra 1234 Ω"]
KINDS = {
    "bert": wordpiece,
    "distilbert": wordpiece,
    "electra": wordpiece,
    "ernie": wordpiece,
    "xlm-roberta": unigram,
    "roberta": unigram,
    "albert": unigram,
    "deberta-v2": unigram,
    "mpnet": unigram,
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp("trim") / kind
            made[kind] = make_masked_lm(folder, kind, KINDS[kind](), extra_rows=7)
        return made[kind]

    return get


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


def trim(model, texts, out, **more):
    return bertune.trim(model, texts, out, held_out=more.pop("held_out", texts), **more)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_gives_the_same_logits_of_the_tokens_that_are_left(kind, encoders, texts, tmp_path):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder, out = encoders(kind), tmp_path / "out"
    result = trim(folder, texts, out)
    old, new = (AutoModelForMaskedLM.from_pretrained(f).eval() for f in (folder, out))
    old_tokenizer, tokenizer = (AutoTokenizer.from_pretrained(f) for f in (folder, out))
    assert new.config.vocab_size == len(tokenizer) == result.after.tokens < len(old_tokenizer)
    assert result.before.tokens == old.config.vocab_size == len(old_tokenizer) + 7
    assert new.config.pad_token_id == tokenizer.pad_token_id == old.config.pad_token_id
    old_ids = [
        old_tokenizer.convert_tokens_to_ids(t) for t in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    ]
    assert len(set(old_ids)) == len(tokenizer)
    for text in TEXTS:
        inputs, cut = old_tokenizer(text, return_tensors="pt"), tokenizer(text, return_tensors="pt")
        assert [old_ids[i] for i in cut["input_ids"][0].tolist()] == inputs["input_ids"][0].tolist()
        with torch.no_grad():
            expected, found = old(**inputs).logits[..., old_ids], new(**cut).logits
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bertune_gives_the_same_states_and_every_other_weight_is_the_same_to_the_byte(
    kind, encoders, texts, tmp_path
):
    folder, out = encoders(kind), tmp_path / "out"
    result = trim(folder, texts, out)
    before, after = load_file(folder / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    cut = [name for name in before if before[name].shape != after[name].shape]
    assert all(len(before[n]) == result.before.tokens and len(after[n]) == result.after.tokens for n in cut)
    assert (
        len(cut) == len([n for n in before if before[n].ndim and len(before[n]) == result.before.tokens]) >= 1
    )
    for name in before.keys() - set(cut):
        assert after[name].dtype == before[name].dtype
        assert torch.equal(after[name], before[name])
    for text in TEXTS:
        old, new = (_states(f, text) for f in (folder, out))
        assert torch.equal(old, new)
    assert result.effect.tokens.changed == 0
    assert result.effect.vectors.lowest == pytest.approx(1, abs=1e-6)
    assert result.after.parameters == sum(t.numel() for t in after.values() if t.is_floating_point())


def _states(folder, text):
    from bertune.data.dataset import EncodedDataset
    from bertune.types import EncodedExample

    pretrained = PretrainedFolder(Path(folder))
    encoder = load_encoder(pretrained)[0].eval()
    tokenizer = pretrained.load_tokenizer(max_positions=encoder.max_positions)
    dataset = EncodedDataset([EncodedExample((e,)) for e in tokenizer.encode([(text,)])])
    with torch.inference_mode():
        return encoder(dataset.gather_texts([0]))


def train(task, model, tmp_path, rows, **settings):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / f"run-{task}-{Path(model).name}"
    settings = {"train.max_steps": 2, "train.batch_size": 4, "data.max_length": 48, **settings}
    overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    bertune.train(
        {"task": task, "model": str(model), "data": {"train": str(data)}, "out": str(out)}, overrides
    )
    return out, data


LABELLED = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(SENTENCES)]
TAGGED = [
    {"text": f"the farmer {name} walked", "entities": [{"start": 11, "end": 11 + len(name), "label": "PER"}]}
    for name in ("fox", "dog", "brown", "lazy")
] * 3
PAIRS = [{"text": a, "text_b": b, "label": n % 3} for n, (a, b) in enumerate(itertools.pairwise(SENTENCES))]


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "deberta-v2"])
def test_a_trained_classifier_predicts_the_same(kind, encoders, tmp_path):
    run, data = train("classify", encoders(kind), tmp_path, LABELLED)
    out = tmp_path / "out"
    result = trim(run, data, out)
    texts = [row["text"] for row in LABELLED]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        old, new = bertune.load(run).predict(texts), bertune.load(out).predict(texts)
    assert [p.value for p in old] == [p.value for p in new]
    assert [p.probabilities for p in old] == [p.probabilities for p in new]
    scores = result.effect.scores
    assert (scores.before, scores.disagreements, scores.rows) == (scores.after, 0, len(LABELLED))
    assert scores.after == bertune.evaluate(out, data).scores.main_value
    bertune.artifact.read.read_weights(out, verify=True)
    assert json.loads((out / "bertune.json").read_text())["trimmed"]["tokens"] == result.after.tokens
    assert "Trimmed vocabulary" in (out / "README.md").read_text()
    assert not (out / "last").exists()
    again, _ = train("classify", out, tmp_path, LABELLED)
    assert bertune.load(again).tokenizer.vocab_size == result.after.tokens


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_model_of_words_counts_its_own_tokens(kind, encoders, tmp_path):
    """Each word is tokenized by itself, so "▁dog" and not "dog" is what a tagger reads."""
    run, data = train("tag", encoders(kind), tmp_path, TAGGED)
    out = tmp_path / "out"
    result = trim(run, data, out)
    assert result.effect.tokens.changed == 0
    old, new = (bertune.load(f).predict([row["text"] for row in TAGGED]) for f in (run, out))
    assert [p.value for p in old] == [p.value for p in new]
    assert result.effect.scores.disagreements == 0


def test_a_pretrained_model_fills_with_the_tokens_that_are_left(encoders, tmp_path, texts):
    run, _ = train("pretrain", encoders("bert"), tmp_path, [{"text": text} for text in SENTENCES])
    result = trim(run, texts, tmp_path / "out")
    assert result.effect.scores is None  # a perplexity of fewer tokens is another figure
    text = "the [MASK] sleeps in the house"
    scores = []
    for folder, k in ((run, result.before.tokens), (tmp_path / "out", result.after.tokens)):
        model = bertune.load(folder, precision="fp32")
        filled = model.fill(text, k=k)
        tokens = model.tokenizer.convert_ids_to_tokens([one["token"] for one in filled])
        scores.append(dict(zip(tokens, [one["score"] for one in filled], strict=True)))
    ratios = [scores[0][token] / scores[1][token] for token in scores[1]]
    assert len(ratios) > 50
    assert max(ratios) < 1
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)  # the same logits, shared among fewer tokens


@pytest.mark.parametrize(("task", "options"), [("match", {}), ("regress", {})])
def test_both_texts_of_pairs_count(task, options, encoders, tmp_path):
    run, data = train(task, encoders("bert"), tmp_path, PAIRS, **options)
    result = trim(run, data, tmp_path / "out")
    assert result.num_texts == 2 * len(PAIRS)
    assert result.effect.tokens.changed == 0
    assert result.effect.scores.before == pytest.approx(result.effect.scores.after, abs=1e-6)


def test_prompts_of_a_model_of_vectors_stay(encoders, tmp_path, texts):
    rows = [{"text": f"dog {n}", "text_b": f"fox {n}"} for n in range(20)]
    prompts = {"options.prompts": {"query": "walkers, talkers: "}}
    run, _ = train("embed", encoders("xlm-roberta"), tmp_path, rows, **prompts)
    out, few = tmp_path / "out", tmp_path / "few.txt"
    few.write_text("北京", encoding="utf-8")
    trim(run, few, out, held_out=few)
    old, new = (bertune.load(f).encode(["北京"], prompt_name="query") for f in (run, out))
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_folder_of_sentence_transformers_keeps_its_modules(kind, encoders, texts, tmp_path):
    source, out = tmp_path / "sentence", tmp_path / "out"
    old = save_sentence_folder(
        encoders(kind), source, "mean", [(16, torch.nn.Tanh())], normalize=True, prompts={"q": "walkers: "}
    )
    result = trim(source, texts, out)
    new = open_sentence_folder(out)
    np.testing.assert_array_equal(old.encode(TEXTS, prompt_name="q"), new.encode(TEXTS, prompt_name="q"))
    np.testing.assert_allclose(
        bertune.load(out, precision="fp32").encode(TEXTS), old.encode(TEXTS), atol=1e-5
    )
    assert result.effect.vectors.what == "vectors of the model"
    assert new.tokenizer.vocab_size == result.after.tokens


def test_a_folder_of_an_early_sentence_transformers_has_its_encoder_inside(encoders, texts, tmp_path):
    source, out = tmp_path / "sentence", tmp_path / "out"
    save_sentence_folder(encoders("bert"), source)
    inside = source / "0_Transformer"
    inside.mkdir()
    for file in [p for p in source.iterdir() if p.is_file() and p.name not in {"modules.json", "README.md"}]:
        file.rename(inside / file.name)
    modules = json.loads((source / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (source / "modules.json").write_text(json.dumps(modules))
    trim(source, texts, out)
    np.testing.assert_array_equal(bertune.load(source).encode(TEXTS), bertune.load(out).encode(TEXTS))
    assert not (out / "model.safetensors").exists()


def test_a_pickled_checkpoint_with_a_tied_decoder_and_a_vocabulary_file(encoders, texts, tmp_path):
    source, out = tmp_path / "old", tmp_path / "out"
    source.mkdir()
    weights = load_file(encoders("bert") / "model.safetensors")
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    weights["bert.pooler.dense.weight"] = torch.ones(32, 32, dtype=torch.float16)
    torch.save(weights, source / "pytorch_model.bin")
    config = json.loads((encoders("bert") / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "mask_token_id": 6, "eos_token_id": None}))
    tokens = [wordpiece().id_to_token(n) for n in range(wordpiece().get_vocab_size())]
    (source / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    (source / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": false}'
    )
    (source / "LICENSE").write_text("MIT")
    (source / "tf_model.h5").write_bytes(b"other weights")
    (source / "manifest.json").write_text('{"of": "the cache"}')
    result = trim(source, texts, out)
    after = load_file(out / "model.safetensors")
    assert "cls.predictions.decoder.weight" not in after
    assert after["bert.pooler.dense.weight"].dtype == torch.float16
    assert sorted(p.name for p in out.iterdir()) == [
        "LICENSE", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    ]  # fmt: skip
    vocab = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert len(vocab) == result.after.tokens
    assert {token: n for n, token in enumerate(vocab)}["[MASK]"] == 6
    config = json.loads((out / "config.json").read_text())
    assert (config["mask_token_id"], config["eos_token_id"], config["vocab_size"]) == (6, None, len(vocab))


def test_texts_of_several_files_and_forms_count_and_prompts_stay(encoders, tmp_path):
    (tmp_path / "a.txt").write_text("the dog\n\nthe dog\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text,text_b,label\nworkers,talkers,1\n", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(
        '{"query": "the fox", "positive": "lazy"}\n{"query": "a", "positive": "brown"}\n'
    )
    files = [tmp_path / name for name in ("a.txt", "b.csv", "c.jsonl")]
    result = trim(encoders("bert"), files, tmp_path / "out", held_out=files[0], prompts=["farmer: "])
    assert result.num_texts == 2 + 2 + 4
    tokenizer = PretrainedFolder(tmp_path / "out").load_tokenizer()
    for word in ("workers", "talkers", "fox", "lazy", "brown", "farmer"):
        old = PretrainedFolder(encoders("bert")).load_tokenizer().encode([(word,)])[0].input_ids
        assert len(tokenizer.encode([(word,)])[0].input_ids) == len(old), word


def test_a_tenth_is_set_aside_and_not_counted(encoders, tmp_path):
    file = tmp_path / "many.txt"
    file.write_text("".join(f"{n} {SENTENCES[n % 5]}\n" for n in range(400)), encoding="utf-8")
    result = bertune.trim(encoders("bert"), file, tmp_path / "out")
    aside = result.effect.tokens.texts
    assert aside + result.num_texts == 400
    assert 20 < aside < 60
    assert result.effect.source == f"{aside} of 400 texts, set aside"
    again = bertune.trim(encoders("bert"), file, tmp_path / "again")
    assert again.effect == result.effect
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "again" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("text", [*"abcdefghijk"])
def test_one_text_is_counted_and_measured_on(text, encoders, tmp_path):
    (tmp_path / "one.txt").write_text(f"{text} dog\n")
    result = bertune.trim(encoders("bert"), tmp_path / "one.txt", tmp_path / "out")
    assert (result.num_texts, result.effect.tokens.texts, result.effect.tokens.changed) == (1, 1, 0)


def test_changed_tokens_are_counted(encoders, texts, tmp_path):
    new = tmp_path / "new.txt"
    new.write_text("\n".join([*NEW_TEXTS, TEXTS[0]]), encoding="utf-8")
    change = trim(encoders("bert"), texts, tmp_path / "out", held_out=new).effect.tokens
    tokenizers = [PretrainedFolder(f).load_tokenizer() for f in (encoders("bert"), tmp_path / "out")]
    rows = [
        [t.convert_ids_to_tokens(e.input_ids) for e in t.encode([(text,) for text in [*NEW_TEXTS, TEXTS[0]]])]
        for t in tokenizers
    ]
    assert change.changed == sum(a != b for a, b in zip(*rows, strict=True)) > 0
    assert (change.tokens_before, change.tokens_after) == tuple(sum(map(len, r)) for r in rows)
    assert change.unknown_before == change.unknown_after == sum(r.count("[UNK]") for r in rows[0]) > 0


def test_keep_decides_the_size(encoders, texts, tmp_path):
    everything = trim(encoders("xlm-roberta"), texts, tmp_path / "a")
    less = trim(encoders("xlm-roberta"), texts, tmp_path / "b", keep=everything.after.tokens - 20)
    assert less.after.tokens == everything.after.tokens - 20
    assert less.kept.left_out == 20
    assert everything.kept.left_out == 0
    assert less.effect.tokens.tokens_after > everything.effect.tokens.tokens_after


def refused(call, kind, match, out):
    with pytest.raises(kind, match=match):
        call()
    assert not out.exists()
    assert not list(out.parent.glob(f"{out.name}.*"))


def test_refusals_name_what_to_do_and_write_nothing(encoders, texts, tmp_path):
    bert, out = encoders("bert"), tmp_path / "out"
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    refused(lambda: trim(bert, texts, out, keep=10), ConfigError, "keep: 10 is less than the", out)
    refused(lambda: trim(bert, texts, out, keep=0), ConfigError, "keep: must be a whole number", out)
    refused(lambda: trim(bert, texts, out, keep="many"), ConfigError, "keep: must be a whole number", out)
    refused(lambda: trim(bert, [], out), ConfigError, "texts: give one file", out)
    refused(lambda: trim(bert, texts, out, prompts="query: "), ConfigError, "prompts: a list", out)
    refused(lambda: bertune.trim(bert, tmp_path / "no.txt", out), BertuneError, r"no\.txt", out)
    refused(lambda: bertune.trim(bert, tmp_path / "empty.txt", out), DataError, r"empty\.txt", out)
    refused(lambda: bertune.trim(bert, tmp_path / "numbers.csv", out), DataError, "no column for 'text'", out)
    refused(lambda: trim(bert, texts, out, held_out=tmp_path / "no.txt"), BertuneError, r"no\.txt", out)
    refused(lambda: trim(bert, texts, out, held_out="-"), ConfigError, "standard input", out)
    refused(lambda: trim(tmp_path / "nothing", texts, out), ConfigError, "no folder", out)
    refused(lambda: trim(tmp_path, texts, out), ConfigError, r"holds no config\.json", out)
    refused(lambda: trim(bert, texts, out, device="tpu"), ConfigError, "device", out)
    with pytest.raises(ConfigError, match="is the model itself"):
        trim(bert, texts, bert)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    with pytest.raises(ConfigError, match="exists already; give a new folder"):
        trim(bert, texts, tmp_path / "full")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="exists already; give a new folder"):
        trim(bert, texts, tmp_path / "file")
    assert (tmp_path / "full" / "a").read_text() == (tmp_path / "file").read_text() == "mine"


def test_models_that_cannot_be_cut_say_why(encoders, texts, tmp_path):
    from tests.chinesebert_folder import write_folder

    out = tmp_path / "out"
    chinese = write_folder(tmp_path / "chinesebert")
    refused(lambda: trim(chinese, texts, out), ConfigError, "pictures and syllables", out)
    coded = tmp_path / "coded"
    coded.mkdir()
    for file in encoders("bert").iterdir():
        (coded / file.name).write_bytes(file.read_bytes())
    config = json.loads((coded / "config.json").read_text())
    (coded / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "code.Model"}}))
    refused(lambda: trim(coded, texts, out), ConfigError, "Python code computes", out)
    run, data = train("classify", encoders("bert"), tmp_path, LABELLED)
    bertune.ensemble([run, run], tmp_path / "both")
    refused(lambda: trim(tmp_path / "both", data, out), ConfigError, "members", out)


def test_a_padding_id_that_positions_are_counted_from_does_not_move(texts, tmp_path):
    tokenizer = unigram()
    folder = make_masked_lm(tmp_path / "late", "xlm-roberta", tokenizer)
    config = json.loads((folder / "config.json").read_text())
    config["pad_token_id"] = tokenizer.token_to_id("<mask>")
    (folder / "config.json").write_text(json.dumps(config))
    refused(
        lambda: trim(folder, texts, tmp_path / "out"),
        ConfigError,
        "positions of .* are counted",
        tmp_path / "out",
    )


def test_what_a_killed_call_has_left_is_no_model_and_goes(encoders, texts, tmp_path, monkeypatch):
    out, part = tmp_path / "out", tmp_path / "out.part"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"half")

    def full_disk(*_args, **_more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bertune.artifact.trim, "write_tensors", full_disk)
        refused(
            lambda: trim(encoders("bert"), texts, out), BertuneError, "cannot be written: No space left", out
        )
    assert not part.exists()
    out.mkdir()  # an empty folder may be there
    trim(encoders("bert"), texts, out)
    assert (out / "model.safetensors").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "texts.txt"]
