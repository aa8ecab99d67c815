"""The similarity that a folder names counts everywhere, with sentence-transformers' own values."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.sentence_folders import (
    PAIRS,
    SCORED,
    TEXTS,
    open_sentence_folder,
    save_sentence_folder,
    write_rows,
)

import bertune
from bertune.errors import ConfigError

pytest.importorskip("sentence_transformers")
SIMILARITIES = ["cosine", "dot", "euclidean", "manhattan"]


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_model_compares_as_its_folder_says(name, tiny, tmp_path):
    theirs = save_sentence_folder(tiny, tmp_path / "theirs", similarity_fn_name=name)
    ours = bertune.load(tmp_path / "theirs", precision="fp32")
    assert ours.task.similarity == ours.similarity_fn_name == theirs.similarity_fn_name == name
    a, b = (theirs.encode(texts, show_progress_bar=False) for texts in (TEXTS, TEXTS[::-1]))
    np.testing.assert_allclose(ours.similarity(a, b), theirs.similarity(a, b), rtol=1e-5, atol=1e-5)
    pairwise = theirs.similarity_pairwise(a, b)
    np.testing.assert_allclose(ours.similarity_pairwise(a, b), pairwise, rtol=1e-5, atol=1e-5)
    predicted = [p.value for p in ours.predict(list(zip(TEXTS, TEXTS[::-1], strict=True)))]
    np.testing.assert_allclose(predicted, pairwise, rtol=1e-4, atol=1e-4)
    assert ours.similarity(a[0], b[0]).shape == theirs.similarity(a[0], b[0]).shape


@pytest.mark.parametrize("name", SIMILARITIES)
def test_scored_pairs_have_the_figures_of_that_similarity(name, tiny, tmp_path):
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    theirs = save_sentence_folder(tiny, tmp_path / "theirs", similarity_fn_name=name)
    found = bertune.evaluate(
        tmp_path / "theirs", str(write_rows(tmp_path / "rows.jsonl", SCORED)), precision="fp32"
    ).scores.values
    sides = [[row[part] for row in SCORED] for part in ("text", "text_b")]
    expected = EmbeddingSimilarityEvaluator(
        *sides, [row["label"] for row in SCORED], write_csv=False, similarity_fn_names=[name]
    )(theirs)
    figures = {n: expected[f"{n}_{name}"] for n in ("spearman", "pearson")}
    assert found == pytest.approx(figures, abs=1e-4)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_search_has_the_figures_of_that_similarity(name, tiny, tmp_path):
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    theirs = save_sentence_folder(tiny, tmp_path / "theirs", similarity_fn_name=name)
    found = bertune.evaluate(
        tmp_path / "theirs", str(write_rows(tmp_path / "rows.jsonl", PAIRS)), precision="fp32"
    ).scores.values
    queries, documents = ({row[part]: row[part] for row in PAIRS} for part in ("text", "text_b"))
    expected = InformationRetrievalEvaluator(
        queries, documents, {row["text"]: {row["text_b"]} for row in PAIRS}, precision_recall_at_k=[1, 5, 10],
        mrr_at_k=[10], ndcg_at_k=[10], accuracy_at_k=[1], write_csv=False, show_progress_bar=False,
    )(theirs)  # fmt: skip
    assert found == pytest.approx({n: expected[f"{name}_{n}"] for n in found}, abs=1e-6)
    assert 0 < found["ndcg@10"] < 1


@pytest.mark.parametrize(
    ("task", "name", "settings", "scale"),
    [
        ("embed", "dot", [], 1.0),
        ("match", "euclidean", [], 1.0),
        ("match", "manhattan", ["options.scale=3"], 3.0),
        ("embed", "dot", ["options.normalize=true"], 20.0),
    ],
)
def test_training_learns_and_saves_a_similarity(task, name, settings, scale, tiny, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", SCORED if task == "match" else PAIRS)
    files = [f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={tmp_path / 'out'}"]
    settings = [*settings, f"options.similarity={name}", "train.max_steps=2"]
    folder = bertune.train(task, [*files, *settings], quiet=True).folder
    ours, theirs = bertune.load(folder, precision="fp32"), open_sentence_folder(folder)
    assert ours.task.similarity == theirs.similarity_fn_name == name
    assert ours.task.options.scale == scale
    usage = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    assert usage["similarity_fn_name"] == name
    predicted = [p.value for p in ours.predict(list(zip(TEXTS, TEXTS[::-1], strict=True)))]
    expected = theirs.similarity_pairwise(theirs.encode(TEXTS), theirs.encode(TEXTS[::-1]))
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["cosine", "contrastive"])
def test_losses_of_cosines_refuse_another_similarity(loss, tiny, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [{**row, "label": n % 2} for n, row in enumerate(PAIRS)])
    settings = [f"data.train={file}", f"model={tiny}", f"options.loss={loss}", "options.similarity=dot"]
    with pytest.raises(ConfigError, match=rf"options\.loss={loss} is for cosines, .*similarity=cosine"):
        bertune.train("match", settings, quiet=True)


def test_the_gradient_of_equal_vectors_is_finite():
    from bertune.losses.similarity import pairwise_similarity, similarity_matrix

    for name in SIMILARITIES:
        vectors = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
        (
            pairwise_similarity(vectors, vectors, name).sum()
            + similarity_matrix(vectors, vectors, name).sum()
        ).backward()
        assert torch.isfinite(vectors.grad).all()
