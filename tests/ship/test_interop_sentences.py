"""Folders of bertune in sentence-transformers, and the other way round: the same vectors."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bertune

st = pytest.importorskip("sentence_transformers")

NOUNS, WORDS = ["dog", "cat", "tree", "house", "car"], ["good", "bad", "fine", "red"]
TEXTS = [f"the {n} is {a}{' and very big' * (len(a) % 3)}" for n in NOUNS for a in WORDS]
ROWS = {
    "embed": [{"text": f"the {n} is {a}", "text_b": f"a {a} {n}"} for n in NOUNS for a in WORDS],
    "match": [{"text": f"the {n} is {a}", "text_b": f"a {a} {n}", "label": i % 3} for i, n in enumerate(NOUNS) for a in WORDS],
}


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def folder_of(tiny, tmp_path, task, *settings):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in ROWS[task]), encoding="utf-8")
    files = [f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={tmp_path / 'out'}"]
    return bertune.train(task, [*files, "train.max_steps=3", "train.learning_rate=1e-3", *settings]).folder


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("embed", ["options.pooling=mean"]),
        ("embed", ["options.pooling=cls", "options.normalize=true"]),
        ("embed", ["options.pooling=pooler", "options.size=16"]),
        ("match", ["options.pooling=max"]),
        ("match", ["options.pooling=mean", "options.loss=softmax", "options.size=8"]),
    ],
    ids=str,
)
def test_a_folder_opens_in_sentence_transformers(tiny, tmp_path, task, settings):
    folder = folder_of(tiny, tmp_path, task, *settings)
    ours = bertune.load(folder, precision="fp32").encode(TEXTS)
    theirs = st.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), ours, atol=1e-5)
    assert cosines(theirs.encode(TEXTS), ours).min() > 0.9999
    assert theirs.max_seq_length == bertune.load(folder).max_seq_length
    last = bertune.load(folder / "last", precision="fp32").encode(TEXTS)
    np.testing.assert_allclose(st.SentenceTransformer(str(folder / "last"), device="cpu").encode(TEXTS), last, atol=1e-5)


def test_a_pooling_that_it_lacks_is_said(tiny, tmp_path, capsys):
    folder = folder_of(tiny, tmp_path, "embed", "options.pooling=first_last_avg")
    assert not (folder / "modules.json").exists()
    assert "neither transformers nor sentence-transformers has a pooling 'first_last_avg'" in capsys.readouterr().err
    assert bertune.load(folder).encode(TEXTS).shape == (20, 32)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_folder_of_sentence_transformers_opens_here(tiny, tmp_path, normalize):
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    modules = [Transformer(str(tiny)), Pooling(32, "cls"), Dense(32, 12)]
    theirs = st.SentenceTransformer(modules=[*modules, *([Normalize()] if normalize else [])], device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    ours = bertune.load(tmp_path / "theirs", precision="fp32")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    pairs = [(r["text"], r["text_b"]) for r in ROWS["embed"]]
    expected = cosines(*(theirs.encode(list(side)) for side in zip(*pairs, strict=True)))
    assert [p.value for p in ours.predict(pairs)] == pytest.approx(expected.tolist(), abs=1e-5)
    file = tmp_path / "scored.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in ROWS["match"]), encoding="utf-8")
    scores, _, _ = bertune.evaluate(tmp_path / "theirs", str(file))
    assert scores.main == "spearman"
