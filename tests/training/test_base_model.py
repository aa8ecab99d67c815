"""Training goes on from a folder of sentence vectors as it is: nothing of it is replaced without a word."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.sentence_folders import (
    PAIRS,
    SCORED,
    TEXTS,
    open_sentence_folder,
    save_sentence_folder,
    silenced,
    write_rows,
)

import bertune
from bertune.artifact.read import read_run
from bertune.commands.train import prepare
from bertune.errors import ConfigError

pytest.importorskip("sentence_transformers")
FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "format-1"
TANH, IDENTITY, GELU = torch.nn.Tanh(), torch.nn.Identity(), torch.nn.GELU()
PROMPTS = {"document": "not a ", "passage": "three ", "query": "the Dog "}
BASES = {
    "bge": {"pooling": "cls", "normalize": True, "max_length": 20},
    "labse": {"pooling": "cls", "dense": [(32, TANH)], "normalize": True},
    "distiluse": {"pooling": "mean", "dense": [(12, TANH)], "max_length": 9},
    "two layers": {"pooling": "max", "dense": [(16, GELU), (8, IDENTITY)]},
    "e5": {"pooling": "mean", "normalize": True, "prompts": PROMPTS, "default_prompt_name": "passage"},
    "dot": {"pooling": "cls", "similarity_fn_name": "dot", "truncate_dim": 7},
    "last": {"pooling": "lasttoken", "similarity_fn_name": "euclidean"},
    "weighted": {"pooling": "weightedmean", "normalize": True, "similarity_fn_name": "manhattan"},
    "root": {"pooling": "mean_sqrt_len_tokens"},
}


def trained(base, tmp_path, task="embed", *settings, name="out"):
    file = write_rows(tmp_path / "rows.jsonl", {"match": SCORED, "embed": PAIRS}[task])
    files = [f"data.train={file}", f"data.dev={file}", f"model={base}", f"out={tmp_path / name}"]
    still = ["train.max_steps=1", "train.learning_rate=1e-9", "train.weight_decay=0"]
    return bertune.train(task, [*files, *still, *settings], quiet=True).folder


def prepared(base, *settings, task="embed"):
    said = []
    run, made = prepare(task, [f"model={base}", *settings], said.append)
    return run, made, said


def least_cosine(a, b):
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.mark.parametrize("task", ["embed", "match"])
@pytest.mark.parametrize("kind", BASES)
def test_training_begins_with_the_vectors_of_the_base(kind, task, tiny, tmp_path):
    theirs = save_sentence_folder(tiny, tmp_path / "base", **BASES[kind])
    folder = trained(tmp_path / "base", tmp_path, task)
    ours, again = bertune.load(folder, precision="fp32"), open_sentence_folder(folder)
    for encode in (
        lambda m: m.encode(TEXTS),
        lambda m: m.encode_query(TEXTS),
        lambda m: m.encode_document(TEXTS),
    ):
        expected = encode(theirs)
        for found in (encode(ours), encode(again)):
            assert found.shape == expected.shape
            assert least_cosine(found, expected) >= 0.9999
            np.testing.assert_allclose(found, expected, atol=1e-4)
    assert again.prompts == theirs.prompts
    for name in ("default_prompt_name", "truncate_dim", "max_seq_length", "similarity_fn_name"):
        assert getattr(again, name) == getattr(theirs, name) == getattr(ours, name)


@pytest.mark.parametrize("kind", ["labse", "e5", "dot"])
def test_a_folder_of_bertune_is_a_base_too(kind, tiny, tmp_path):
    theirs = save_sentence_folder(tiny, tmp_path / "base", **BASES[kind])
    first = trained(tmp_path / "base", tmp_path, name="first")
    second = bertune.load(trained(first, tmp_path, name="second"), precision="fp32")
    assert least_cosine(second.encode(TEXTS), theirs.encode(TEXTS)) >= 0.9999


@pytest.mark.parametrize("pooling", ["first_last_avg", "pooler"])
def test_what_only_bertune_computes_is_taken_over(pooling, tiny, tmp_path):
    made = [
        f"options.pooling={pooling}",
        "options.embedding_dim=12",
        "options.normalize=true",
        "data.max_length=9",
    ]
    first = bertune.load(trained(tiny, tmp_path, "embed", *made, name="first"), precision="fp32")
    second = bertune.load(trained(tmp_path / "first", tmp_path, "match", name="second"), precision="fp32")
    assert least_cosine(second.encode(TEXTS), first.encode(TEXTS)) >= 0.9999
    assert second.max_seq_length == 9


def test_what_is_taken_over_is_said_in_one_line(tiny, tmp_path, capsys):
    save_sentence_folder(
        tiny, tmp_path / "base", "cls", [(12, TANH)], normalize=True, max_length=20, prompts=PROMPTS
    )
    _, _, said = prepared(tmp_path / "base")
    assert said == [
        f"model {tmp_path / 'base'}: pooling=cls, dense=[[12, tanh]], normalize=true, "
        "prompts={document: 'not a ', passage: 'three ', query: 'the Dog '}, max_length=20 "
        "taken over from the folder"
    ]
    file = write_rows(tmp_path / "rows.jsonl", PAIRS)
    settings = [
        f"data.train={file}",
        f"model={tmp_path / 'base'}",
        "train.max_steps=1",
        f"out={tmp_path / 'o'}",
    ]
    bertune.train("embed", settings)
    shown = capsys.readouterr().err.splitlines()
    assert f"note: {said[0]}" in shown
    assert "weights: new, to be learnt: none" in shown


def test_what_is_given_counts_and_is_said(tiny, tmp_path):
    save_sentence_folder(
        tiny,
        tmp_path / "base",
        "cls",
        normalize=True,
        max_length=20,
        prompts=PROMPTS,
        default_prompt_name="query",
    )
    given = ["options.pooling=mean", "options.normalize=false", "data.max_length=30", "options.prompts={}"]
    run, task, said = prepared(tmp_path / "base", *given)
    assert (run.options["pooling"], run.options["normalize"], run.options["prompts"]) == ("mean", False, {})
    assert (run.data.max_length, task.data.max_length, task.prompt) == (30, 30, "")
    assert task.options.model_dump() == run.options
    assert said == [
        f"model {tmp_path / 'base'}: given, unlike the folder: options.pooling=mean instead of cls, "
        "options.normalize=false instead of true, options.prompts={} instead of "
        "{document: 'not a ', passage: 'three ', query: 'the Dog '}, data.max_length=30 instead of 20"
    ]


def test_a_layer_after_those_of_the_folder_is_new(tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", "cls", [(12, TANH)])
    head = bertune.load(trained(tmp_path / "base", tmp_path, "embed", "options.embedding_dim=5")).model.head
    assert [
        (layer.out_features, activation)
        for layer, activation in zip(head.dense, head.activations, strict=True)
    ] == [
        (12, "tanh"),
        (5, "none"),
    ]
    # and the same option again is the layer that the folder has by then
    again = bertune.load(
        trained(tmp_path / "out", tmp_path, "embed", "options.embedding_dim=5", name="again")
    ).model.head
    assert len(again.dense) == 2
    torch.testing.assert_close(again.dense[1].weight, head.dense[1].weight, atol=1e-6, rtol=0)


def test_the_run_file_says_what_was_used_and_repeats_it(tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", **BASES["labse"], max_length=20, prompts=PROMPTS)
    folder = trained(tmp_path / "base", tmp_path)
    run = read_run(folder)
    assert run.options["pooling"] == "cls"
    assert run.options["dense"] == [[32, "tanh"]]
    assert run.options["prompts"] == {**PROMPTS}
    assert (run.options["normalize"], run.data.max_length) == (True, 20)
    again = bertune.train(str(folder / "run.yaml"), [f"out={tmp_path / 'again'}"], quiet=True).folder
    assert (again / "run.yaml").read_text() == (folder / "run.yaml").read_text()
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert bertune.train(str(folder), resume=True, quiet=True).folder == folder


def test_a_stopped_run_goes_on_with_what_it_took_over(tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", **BASES["distiluse"])
    file = write_rows(tmp_path / "rows.jsonl", PAIRS)
    settings = [
        f"data.train={file}",
        f"data.dev={file}",
        f"model={tmp_path / 'base'}",
        f"out={tmp_path / 'out'}",
    ]
    settings += ["train.max_steps=4", "train.checkpoint_every=2", "train.batch_size=8"]

    class Stop(bertune.Listener):
        def on_step(self, *_, **__):
            if (tmp_path / "out" / "checkpoints").is_dir() and any(
                (tmp_path / "out" / "checkpoints").iterdir()
            ):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bertune.train("embed", settings, quiet=True, listeners=[Stop()])
    for source in ("embed", str(tmp_path / "out")):
        copy = tmp_path / f"copy-{source[-3:]}"
        shutil.copytree(tmp_path / "out", copy)
        words = [*settings, f"out={copy}"] if source == "embed" else []
        folder = bertune.train(source if words else str(copy), words, resume=True, quiet=True).folder
        assert bertune.load(folder).get_embedding_dimension() == 12


def test_other_tasks_take_over_nothing(tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", **BASES["bge"])
    run, _, said = prepared(tmp_path / "base", task="classify")
    assert (run.data.max_length, said) == (None, [])
    assert prepared(tiny, task="embed")[2] == []
    (tmp_path / "base" / "modules.json").write_text("not JSON")
    assert prepared(tmp_path / "base", task="tag")[2] == []
    with pytest.raises(ConfigError, match=r"modules\.json: damaged"):
        prepared(tmp_path / "base", task="match")


def test_null_is_the_limit_of_the_encoder(tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", **BASES["bge"])
    run, _, said = prepared(tmp_path / "base", "data.max_length=null")
    assert run.data.max_length is None
    assert said[1].endswith("data.max_length=null instead of 20")


def test_early_folders_have_the_encoder_inside(tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", "cls", max_length=20)
    inside = tmp_path / "base" / "0_Transformer"
    inside.mkdir()
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    ):
        (tmp_path / "base" / name).rename(inside / name)
    listing = json.loads((tmp_path / "base" / "modules.json").read_text())
    listing[0]["path"] = "0_Transformer"
    (tmp_path / "base" / "modules.json").write_text(json.dumps(listing))
    before = bertune.load(tmp_path / "base", precision="fp32").encode(TEXTS)
    folder = trained(tmp_path / "base", tmp_path)
    assert least_cosine(bertune.load(folder, precision="fp32").encode(TEXTS), before) >= 0.9999


@pytest.mark.parametrize("kind", ["SpladePooling", "LSTM", "WeightedLayerPooling"])
def test_modules_that_bertune_lacks_are_refused_by_name(kind, tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base")
    listing = json.loads((tmp_path / "base" / "modules.json").read_text())
    listing.insert(1, {"idx": 1, "name": "1", "path": "1_X", "type": f"sentence_transformers.models.{kind}"})
    (tmp_path / "base" / "modules.json").write_text(json.dumps(listing))
    with pytest.raises(ConfigError, match=rf"{kind}.*without modules\.json"):
        prepared(tmp_path / "base")
    prepared(tmp_path / "base", task="classify")  # which needs the encoder alone
    (tmp_path / "base" / "modules.json").unlink()
    assert prepared(tmp_path / "base")[2] == []


def test_prompts_that_are_not_pooled_are_refused(tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", prompts=PROMPTS)
    file = tmp_path / "base" / "1_Pooling" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "include_prompt": False}))
    with pytest.raises(ConfigError, match="include_prompt"):
        prepared(tmp_path / "base", task="match")


def test_a_cross_encoder_is_an_encoder_like_any_other(tiny, tmp_path):
    from sentence_transformers import CrossEncoder

    with silenced():
        CrossEncoder(str(tiny), num_labels=1, device="cpu").save(str(tmp_path / "base"))
    assert prepared(tmp_path / "base")[2] == []


def test_what_the_folder_leaves_open_is_not_said(tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", max_length=20)
    given = ["options.normalize=true", "options.prompts={query: 'a '}", "options.truncate_dim=8"]
    _, task, said = prepared(tmp_path / "base", *given)
    assert said == [f"model {tmp_path / 'base'}: pooling=mean, max_length=20 taken over from the folder"]
    assert task.options.normalize


def test_a_default_prompt_without_its_prompt_is_refused(tiny, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", PAIRS)
    with pytest.raises(ConfigError, match=r"default_prompt_name: 'q' is none of options\.prompts"):
        bertune.train(
            "embed", [f"data.train={file}", f"model={tiny}", "options.default_prompt_name=q"], quiet=True
        )


@pytest.mark.parametrize("kind", ["embed", "match"])
def test_folders_of_format_1_are_bases_too(kind, tmp_path):
    base = FORMAT_1 / kind
    before = bertune.load(base, precision="fp32")
    after = bertune.load(trained(base, tmp_path, kind), precision="fp32")
    assert least_cosine(after.encode(TEXTS), before.encode(TEXTS)) >= 0.9999
    assert after.max_seq_length == before.max_seq_length
    assert len(after.model.head.dense) == len(before.model.head.dense)


@pytest.mark.parametrize("kind", ["classify", "tag", "regress"])
def test_folders_without_vectors_are_encoders(kind):
    assert prepared(FORMAT_1 / kind)[2] == []


@pytest.mark.parametrize(
    ("prompts", "default"),
    [(PROMPTS, "passage"), ({"any": "big red "}, "any"), ({"query": "not very "}, None)],
)
def test_dev_rows_of_training_are_scored_as_evaluate_scores_them(prompts, default, tiny, tmp_path):
    save_sentence_folder(tiny, tmp_path / "base", prompts=prompts, default_prompt_name=default)
    folder = trained(tmp_path / "base", tmp_path, "embed", "train.precision=fp32")
    scores = json.loads((folder / "scores.json").read_text())["dev"]["values"]
    found = bertune.evaluate(folder, str(tmp_path / "rows.jsonl"), precision="fp32").scores.values
    assert {name: found[name] for name in scores} == pytest.approx(scores, abs=1e-9)


def test_the_prompts_of_a_search_are_put_before_texts_in_training(tiny, tmp_path, capsys):
    file = write_rows(tmp_path / "rows.jsonl", PAIRS)
    settings = [f"data.train={file}", f"data.dev={file}", f"model={tiny}", "train.max_steps=1"]
    prompted = ["options.prompts={query: 'the dog ', passage: 'a cat '}", f"out={tmp_path / 'prompted'}"]
    bertune.train("embed", [*settings, *prompted])
    assert "data: queries get the prompt 'the dog ', texts to find 'a cat '" in capsys.readouterr().err
    rows = [{"text": f"the dog {row['text']}", "text_b": f"a cat {row['text_b']}"} for row in PAIRS]
    write_rows(file, rows)
    bertune.train("embed", [*settings, f"out={tmp_path / 'written'}"], quiet=True)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("prompted", "written"))
    assert one == other


def test_a_run_of_an_earlier_version_goes_on_as_it_began(tiny, tmp_path):
    """Its run file and checkpoint lack the options that are new: it took nothing over."""
    save_sentence_folder(tiny, tmp_path / "base", "cls", normalize=True, prompts=PROMPTS)
    file, out, whole = write_rows(tmp_path / "rows.jsonl", PAIRS), tmp_path / "out", tmp_path / "whole"
    settings = [f"data.train={file}", f"data.dev={file}", f"model={tmp_path / 'base'}"]
    settings += ["train.max_steps=4", "train.checkpoint_every=2", "train.batch_size=8"]
    settings += [
        "options.pooling=mean",
        "options.normalize=false",
        "options.prompts={}",
        "data.max_length=null",
    ]

    class Stop(bertune.Listener):
        def on_step(self, *_, **__):
            if any(out.glob("checkpoints/*")):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bertune.train("embed", [*settings, f"out={out}"], quiet=True, listeners=[Stop()])
    new = ("dense", "prompts", "similarity", "do_lower_case", "truncate_dim", "default_prompt_name")
    run = yaml.safe_load((out / "run.yaml").read_text())
    run["options"] = {name: value for name, value in run["options"].items() if name not in new}
    (out / "run.yaml").write_text(yaml.safe_dump(run))
    for description in out.glob("checkpoints/*/checkpoint.json"):
        content = json.loads(description.read_text())
        options = content["about"]["run"]["options"]
        content["about"]["run"]["options"] = {n: v for n, v in options.items() if n not in new}
        description.write_text(json.dumps(content))
    bertune.train(str(out), resume=True, quiet=True)
    bertune.train("embed", [*settings, f"out={whole}"], quiet=True)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
