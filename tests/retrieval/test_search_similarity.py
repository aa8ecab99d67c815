"""A search compares as the model's folder says: by cosine, product or distance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.sentence_folders import save_sentence_folder
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.errors import ConfigError
from bertune.inference.vectors import pair_similarities
from bertune.metrics.similarity import similarity_matrix
from bertune.retrieval import search
from bertune.retrieval.index import build_index, open_index
from bertune.retrieval.search import IndexInfo

SIMILARITIES = ["cosine", "dot", "euclidean", "manhattan"]
TEXTS = [f"the {'big ' * n}dog {n} is {word}" for n in range(4) for word in ("good", "bad", "red")]
QUERIES = ["a dog is good", "the big big red dog", "天 很 好"]


def index_of(folder, given, similarity):
    info = IndexInfo(len(given), given.shape[1], "float32", "model", {}, {}, similarity)
    rows = [({"id": n}, str(n), n + 1) for n in range(len(given))]
    build_index(folder, info, rows, lambda texts: given[[int(text) for text in texts]])
    return open_index(folder, "model")


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("size", [1.0, 1e3, 1e-3])
def test_search_is_brute_force(tmp_path, similarity, size, monkeypatch):
    monkeypatch.setattr(search, "BLOCK_ROWS", 50)
    random = np.random.default_rng(0)
    given = (random.normal(size=(333, 24)) * random.uniform(0.2, 3, (333, 1)) * size).astype(np.float32)
    given[100] = given[7]
    queries = np.concatenate([given[:20], random.normal(size=(20, 24)).astype(np.float32) * size])
    index = index_of(tmp_path, given, similarity)
    if similarity != "cosine":
        assert (np.asarray(index.vectors) == given).all()
    for (scores, rows), query in zip(index.nearest(queries, 9), queries, strict=True):
        every = pair_similarities(np.repeat(query[None], 333, 0), index.vectors, similarity)
        wanted = np.lexsort((np.arange(333), -every))[:9]
        assert rows.tolist() == wanted.tolist()
        assert (scores == every[wanted]).all()


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_pairs_of_vectors_are_the_matrix(similarity):
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 30, 8)).astype(np.float32)
    matrix = similarity_matrix(a, b, similarity)
    np.testing.assert_allclose(pair_similarities(a, b, similarity), np.diag(matrix), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_usearch_compares_so_too(tmp_path, similarity):
    pytest.importorskip("usearch")
    random = np.random.default_rng(0)
    given = (random.normal(size=(300, 16)) * random.uniform(0.2, 3, (300, 1))).astype(np.float32)
    index = index_of(tmp_path, given, similarity)
    found, exact = (index.search(given[:20], 10, engine) for engine in ("usearch", "exact"))
    shared = [len({h.row for h in a} & {h.row for h in b}) for a, b in zip(found, exact, strict=True)]
    assert sum(shared) > 150
    with pytest.raises(ConfigError, match="usearch does not compare by manhattan; use --engine exact"):
        index_of(tmp_path / "manhattan", given, "manhattan").search(given[:2], 3, "usearch")


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_search_ranks_as_sentence_transformers_does(tiny, tmp_path, similarity):
    pytest.importorskip("sentence_transformers")
    theirs = save_sentence_folder(tiny, tmp_path / "model", similarity_fn_name=similarity)
    (tmp_path / "corpus.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    words = ["search", tmp_path / "model", tmp_path / "corpus.txt", *QUERIES, "-k", "5", "--json"]
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--precision", "fp32")])
    assert result.exit_code == 0, result.output
    vectors = theirs.encode(TEXTS, show_progress_bar=False)
    queries = theirs.encode(QUERIES, show_progress_bar=False)
    expected = theirs.similarity(queries, vectors).numpy()
    for line, scores in zip(map(json.loads, result.stdout.splitlines()), expected, strict=True):
        best = np.sort(scores)[::-1][:5]
        np.testing.assert_allclose([hit["score"] for hit in line["hits"]], best, rtol=2e-3, atol=2e-3)
        assert line["hits"][0]["text"] == TEXTS[int(scores.argmax())]


def test_near_duplicates_are_found_by_cosine_whatever_the_similarity(tiny, tmp_path):
    pytest.importorskip("sentence_transformers")
    save_sentence_folder(tiny, tmp_path / "model", similarity_fn_name="dot")
    (tmp_path / "corpus.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    words = ["search", tmp_path / "model", tmp_path / "corpus.txt", "--pairs", "--threshold", "-1", "--json"]
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--precision", "fp32")])
    assert "pairs: compared by cosine; the model compares by dot" in result.stderr
    vectors = bertune.load(tmp_path / "model", precision="fp32").encode(TEXTS, normalize_embeddings=True)
    pairs = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(pairs) == len(TEXTS) * (len(TEXTS) - 1) // 2
    for pair in pairs:
        first, second = (row - 1 for row in pair["rows"])
        assert pair["score"] == pytest.approx(float(vectors[first] @ vectors[second]), abs=1e-3)


def test_another_similarity_is_another_index(tiny, tmp_path):
    pytest.importorskip("sentence_transformers")
    save_sentence_folder(tiny, tmp_path / "model", similarity_fn_name="cosine")
    (tmp_path / "corpus.txt").write_text("a dog\na cat\n")
    words = ["search", str(tmp_path / "model"), str(tmp_path / "corpus.txt"), "dog"]
    assert CliRunner().invoke(app, words).exit_code == 0
    path = tmp_path / "model" / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "similarity_fn_name": "dot"}))
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "was made with another similarity: 'cosine' there, 'dot' here" in result.stderr
