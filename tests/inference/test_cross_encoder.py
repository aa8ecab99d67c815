"""Folders of regress and classify in sentence-transformers' CrossEncoder: the numbers that bertune predicts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.sentence_folders import PAIRS, silenced, write_rows

import bertune

pytest.importorskip("sentence_transformers")
LONG = ("the dog is good " * 40, "a cat " * 30)
TEXTS = [*((row["text"], row["text_b"]) for row in PAIRS[:6]), LONG]
KINDS = {
    "high numbers": ("regress", lambda n: 50 + 10 * (n % 10)),
    "low numbers": ("regress", lambda n: -3.5 + n % 3),
    "two labels": ("classify", lambda n: ["no", "yes"][n % 2]),
    "three labels": ("classify", lambda n: ["a", "b", "c"][n % 3]),
    "several labels": ("classify", lambda n: [["a"], ["a", "b"], []][n % 3]),
}


def opened(folder):
    from sentence_transformers import CrossEncoder

    with silenced():
        return CrossEncoder(str(folder), device="cpu", local_files_only=True)


def trained(base, tmp_path, task, label, name="out"):
    rows = [{**row, "label": label(n)} for n, row in enumerate(PAIRS)]
    file = write_rows(tmp_path / f"{name}.jsonl", rows)
    settings = [f"data.train={file}", f"data.dev={file}", f"model={base}", f"out={tmp_path / name}"]
    return bertune.train(task, [*settings, "train.max_steps=3"], quiet=True).folder


def predicted(folder):
    """Numbers, or the probability of each label."""
    predictions = bertune.load(folder, precision="fp32").predict(TEXTS)
    values = [list(p.probabilities.values()) if p.probabilities else p.value for p in predictions]
    return np.array(values, float)


@pytest.mark.parametrize("kind", KINDS)
def test_its_numbers_are_ours(kind, tiny, tmp_path):
    task, label = KINDS[kind]
    folder = trained(tiny, tmp_path, task, label)
    scores = opened(folder).predict(TEXTS, show_progress_bar=False)
    if kind in {"two labels", "three labels"}:  # logits there, unless asked for
        scores = opened(folder).predict(TEXTS, show_progress_bar=False, apply_softmax=True)
    np.testing.assert_allclose(scores, predicted(folder), rtol=1e-4, atol=1e-4)
    assert scores.std() > 1e-5


def test_the_keys_of_every_version_are_there(tiny, tmp_path):
    """Version 3 looks at the first, versions from 4 on at the second."""
    folder = trained(tiny, tmp_path, *KINDS["high numbers"])
    config = json.loads((folder / "config.json").read_text())
    identity = "torch.nn.modules.linear.Identity"
    assert config["sbert_ce_default_activation_function"] == identity
    assert config["sentence_transformers"]["activation_fn"] == identity
    for key in ("sbert_ce_default_activation_function", "sentence_transformers"):
        (folder / "config.json").write_text(json.dumps({n: v for n, v in config.items() if n != key}))
        scores = opened(folder).predict(TEXTS, show_progress_bar=False)
        np.testing.assert_allclose(scores, predicted(folder), rtol=1e-4)


def test_the_activation_of_a_base_is_not_kept(tiny, tmp_path):
    from sentence_transformers import CrossEncoder

    with silenced():
        CrossEncoder(str(tiny), num_labels=1, device="cpu").save(str(tmp_path / "base"))
    file = tmp_path / "base" / "config.json"
    sigmoid = "torch.nn.modules.activation.Sigmoid"
    named = {
        "sbert_ce_default_activation_function": sigmoid,
        "sentence_transformers": {"activation_fn": sigmoid},
    }
    file.write_text(json.dumps({**json.loads(file.read_text()), **named}))
    folder = trained(tmp_path / "base", tmp_path, *KINDS["high numbers"])
    np.testing.assert_allclose(
        opened(folder).predict(TEXTS, show_progress_bar=False), predicted(folder), rtol=1e-4
    )
    tags = [{"words": ["the", "dog"], "tags": ["O", "B-X"]}] * 8
    settings = [f"data.train={write_rows(tmp_path / 't.jsonl', tags)}", f"model={tmp_path / 'base'}"]
    settings += ["train.max_steps=1", f"out={tmp_path / 'tag'}", "data.dev=" + str(tmp_path / "t.jsonl")]
    config = json.loads((bertune.train("tag", settings, quiet=True).folder / "config.json").read_text())
    assert not config.keys() & named.keys()
