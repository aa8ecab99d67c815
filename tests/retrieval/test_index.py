"""Search finds what brute force finds, in the same order; an index is whole or says what it lacks."""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertune.errors import ArtifactError, ConfigError, DataError, MissingExtra
from bertune.inference.vectors import cosines, l2_normalize
from bertune.retrieval import search, writers
from bertune.retrieval.index import build_index, open_index
from bertune.retrieval.search import Index, IndexInfo

FORMS = ["float32", "float16"]


def rows_of(count):
    return [({"id": n, "text": f"词 {n}", "half": "\ud83d"}, str(n), 2 * n + 1) for n in range(count)]


def info_of(given, form="float32", **changes):
    return replace(IndexInfo(len(given), given.shape[1], form, "model a", {"file": "x"}), **changes)


def encoder_of(given, calls=None, stops_at=None):
    """Encode a row's number as a row of `given`."""
    calls = [] if calls is None else calls

    def encode(texts):
        if len(calls) == stops_at:
            raise Stopped
        calls.append(texts)
        return given[[int(text) for text in texts]]

    return encode


class Stopped(Exception):
    pass


def build(folder, given, form="float32", **changes):
    info = info_of(given, form, **changes)
    build_index(folder, info, rows_of(len(given)), encoder_of(given))
    return open_index(folder, info.model_fingerprint)


def in_memory(given, form="float32"):
    """An index without a folder, for questions that ask for numbers alone."""
    return Index(
        Path("nowhere"),
        info_of(given, form),
        l2_normalize(given).astype(form),
        np.zeros(len(given), dtype=np.int64),
        np.zeros(len(given), dtype=np.int64),
        np.zeros(0, dtype=np.uint8),
    )


def all_cosines(left, right):
    """Brute force, a pair at a time in Python's own numbers."""
    table = np.zeros((len(left), len(right)), dtype=np.float32)
    for a, b in itertools.product(range(len(left)), range(len(right))):
        x, y = left[a].astype(np.float64), right[b].astype(np.float64)
        lengths = float(x @ x) * float(y @ y)
        table[a, b] = float(x @ y) / lengths**0.5 if lengths else 0
    return table


def ranked(scores, k):
    order = np.lexsort((np.arange(len(scores)), -scores))[:k]
    return order.tolist()


@st.composite
def corpora(draw):
    """Vectors of which many are equal or nearly so, blocks smaller than they are many."""
    count, width = draw(st.integers(1, 40)), draw(st.integers(1, 20))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    different = random.normal(size=(draw(st.integers(1, count)), width)).astype(np.float32)
    given = different[random.integers(0, len(different), count)] * random.uniform(0.5, 2, (count, 1)).astype(
        np.float32
    )
    if draw(st.booleans()):
        given[random.integers(0, count)] = 0
    return given, random


def same_scores(got, wanted):
    """Equal but for the last bit of float32: brute force sums in another order."""
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1.2e-7)


# --- search ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@given(corpora(), st.integers(1, 12), st.integers(1, 9), st.integers(1, 4))
def test_search_is_brute_force(form, corpus, k, block, at_once):
    given, random = corpus
    index = in_memory(given, form)
    queries = random.normal(size=(5, given.shape[1])).astype(np.float32)
    queries[0] = given[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "BLOCK_ROWS", block)
        patch.setattr(search, "QUERY_BATCH_SIZE", at_once)
        found = index.nearest(queries, k)
    every = np.stack([cosines(np.repeat(q[None], len(given), 0), index.vectors) for q in queries])
    same_scores(every, all_cosines(queries, index.vectors))
    for (scores, rows), wanted in zip(found, every, strict=True):
        assert rows.tolist() == ranked(wanted, k)
        assert (scores == wanted[rows]).all()


@pytest.mark.parametrize("form", FORMS)
def test_search_is_brute_force_over_many_blocks(form, monkeypatch):
    monkeypatch.setattr(search, "BLOCK_ROWS", 100)
    random = np.random.default_rng(0)
    given = random.normal(size=(1234, 64)).astype(np.float32)
    index, queries = in_memory(given, form), random.normal(size=(300, 64)).astype(np.float32)
    every = np.stack([cosines(np.repeat(q[None], len(given), 0), index.vectors) for q in queries])
    found = index.nearest(queries, 10)
    assert [rows.tolist() for _, rows in found] == [ranked(scores, 10) for scores in every]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [3, 64, 1024])
def test_products_that_choose_candidates_are_nearer_than_the_margin(form, width):
    random = np.random.default_rng(0)
    given = np.abs(random.normal(size=(400, width))).astype(np.float32)  # of one sign, so that errors add up
    index = in_memory(given, form)
    every = np.stack([cosines(np.repeat(q[None], len(given), 0), index.vectors) for q in given[:50]])
    assert np.abs(l2_normalize(given[:50]) @ index._block(0, 400).T - every).max() < index._margin / 2


@pytest.mark.parametrize("form", FORMS)
def test_of_equal_rows_the_earlier_come_first(form, monkeypatch):
    monkeypatch.setattr(search, "BLOCK_ROWS", 7)
    random = np.random.default_rng(0)
    given = random.normal(size=(50, 33)).astype(np.float32)
    given[3::4] = given[3]
    scores, rows = in_memory(given, form).nearest(given[3:4], 5)[0]
    assert rows.tolist() == [3, 7, 11, 15, 19]
    assert (scores == scores[0]).all() and scores[0] == pytest.approx(1, abs=1e-3)


def test_what_is_found_depends_neither_on_the_other_queries_nor_on_blocks(monkeypatch):
    random = np.random.default_rng(0)
    index, queries = (
        in_memory(random.normal(size=(500, 48)).astype(np.float32)),
        random.normal(size=(9, 48)).astype(np.float32),
    )
    together = index.nearest(queries, 20)
    monkeypatch.setattr(search, "BLOCK_ROWS", 61)
    alone = [index.nearest(query[None], 20)[0] for query in queries]
    for (scores, rows), (scores_alone, rows_alone) in zip(together, alone, strict=True):
        assert rows.tolist() == rows_alone.tolist() and scores.tolist() == scores_alone.tolist()


def test_length_does_not_matter_and_zero_has_score_zero():
    given = np.array([[1, 0], [0, 5], [0, 0]], dtype=np.float32)
    scores, rows = in_memory(given).nearest(np.array([[0, 1e-3]], dtype=np.float32), 3)[0]
    assert rows.tolist() == [1, 0, 2] and scores.tolist() == [1, 0, 0]
    assert in_memory(given).nearest(np.zeros((1, 2), dtype=np.float32), 2)[0][1].tolist() == [0, 1]


def test_more_than_there_are_gives_all(tmp_path):
    given = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    hits = build(tmp_path, given).search(given[:2], 100)
    assert [len(one) for one in hits] == [9, 9]
    assert sorted(hit.row for hit in hits[0]) == list(range(9))


def test_hits_bring_their_rows(tmp_path):
    given = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    index = build(tmp_path, given, "float16")
    for n, (best, *_) in enumerate(index.search(given, 3)):
        assert best.row == n and best.score > 0.999 and best.raw == rows_of(30)[n][0]
        assert best.line == 2 * n + 1
    assert index.search(given[:0], 3) == []


@pytest.mark.parametrize(
    ("queries", "k", "engine", "message"),
    [
        (np.zeros((1, 3), dtype=np.float32), 1, "exact", r"expected \(number, 2\), got \(1, 3\)"),
        (np.zeros(2, dtype=np.float32), 1, "exact", r"expected \(number, 2\), got \(2,\)"),
        (
            np.array([[0, 0], [0, np.nan]], dtype=np.float32),
            1,
            "exact",
            "query 2 holds numbers that are not finite",
        ),
        (np.zeros((1, 2), dtype=np.float32), 0, "exact", "k: got 0, must be at least 1"),
        (np.zeros((1, 2), dtype=np.float32), 1, "faiss", "'faiss' is none of exact, usearch"),
    ],
)
def test_questions_that_cannot_be_answered(queries, k, engine, message):
    with pytest.raises(ConfigError, match=message):
        in_memory(np.ones((3, 2), dtype=np.float32)).nearest(queries, k, engine)


# --- pairs -------------------------------------------------------------------------------------------------------------------------


def all_pairs(stored, threshold):
    found = []
    for a, b in itertools.combinations(range(len(stored)), 2):
        score = float(cosines(stored[a : a + 1], stored[b : b + 1])[0])
        if score >= threshold:
            found.append((score, a, b))
    return sorted(found, key=lambda pair: (-pair[0], pair[1], pair[2]))


@pytest.mark.parametrize("form", FORMS)
@given(
    corpora(),
    st.sampled_from([-1, -0.5, 0, 0.3, 0.9, 1]),
    st.sampled_from([1, 3, 20, 2000]),
    st.integers(1, 9),
)
def test_pairs_are_brute_force(form, corpus, threshold, most, tile):
    index = in_memory(corpus[0], form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "TILE_ROWS", tile)
        best, total = index.near_duplicates(threshold, most)
    wanted = all_pairs(index.vectors, threshold)
    assert total == len(wanted)
    assert best == wanted[:most]


def test_a_threshold_of_one_finds_equal_rows():
    random = np.random.default_rng(0)
    given = random.normal(size=(300, 100)).astype(np.float32)
    given[200:] = given[:100]
    best, total = in_memory(given).near_duplicates(1.0, 1000)
    assert total == 100 and [(pair.first, pair.second) for pair in best] == [(n, n + 200) for n in range(100)]


def test_pairs_tell_how_far_they_are(monkeypatch):
    monkeypatch.setattr(search, "TILE_ROWS", 4)
    progress = []
    in_memory(np.eye(10, dtype=np.float32)).near_duplicates(0.5, 5, progress.append)
    assert progress == [4, 8, 10]


@pytest.mark.parametrize(("threshold", "most"), [(1.5, 1), (float("nan"), 1), (0.5, 0)])
def test_pairs_that_cannot_be_asked_for(threshold, most):
    with pytest.raises(ConfigError, match=r"threshold: got|max_pairs: got"):
        in_memory(np.eye(3, dtype=np.float32)).near_duplicates(threshold, most)


# --- the folder --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def given():
    return np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)


def files_of(folder):
    """What is in a folder, but for a lock that a killed process has left: it holds nobody up."""
    locks = (".part.lock", ".part.owner")
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(locks)}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_in_the_folder(tmp_path, given, form):
    build(tmp_path, given, form)
    assert sorted(files_of(tmp_path)) == [
        "index.json", "lines.npy", "offsets.npy", "texts.jsonl", "vectors.npy",
    ]  # fmt: skip
    assert json.loads((tmp_path / "index.json").read_text()) == {
        "format": 2, "rows": 30, "width": 6, "form": form, "model": "model a", "source": {"file": "x"},
        "vectors": {}, "similarity": "cosine",
    }  # fmt: skip
    stored = np.load(tmp_path / "vectors.npy")
    assert stored.dtype == form and np.abs(np.linalg.norm(stored.astype(np.float64), axis=1) - 1).max() < 1e-3
    lines = (tmp_path / "texts.jsonl").read_bytes().splitlines(keepends=True)
    assert [json.loads(line) for line in lines] == [raw for raw, _, _ in rows_of(30)]
    assert np.load(tmp_path / "offsets.npy").tolist() == [0, *itertools.accumulate(map(len, lines))][:-1]


def test_building_goes_on_where_it_was_stopped(tmp_path, given, monkeypatch):
    monkeypatch.setattr(writers, "CHUNK_ROWS", 8)
    build(tmp_path / "whole", given)
    for stops_at in range(4):
        folder = tmp_path / f"stopped{stops_at}"
        calls = []
        with pytest.raises(Stopped):
            build_index(folder, info_of(given), iter(rows_of(30)), encoder_of(given, calls, stops_at))
        with pytest.raises(ArtifactError, match="not finished; run the command that was making it again"):
            open_index(folder, "model a")
        assert (
            build_index(folder, info_of(given), iter(rows_of(30)), encoder_of(given, calls)) == 8 * stops_at
        )
        assert sorted(map(int, itertools.chain(*calls))) == list(range(30))
        assert files_of(folder) == files_of(tmp_path / "whole")


class Killed(BaseException):
    pass


def dies(moment, build):
    clock = itertools.count()

    def deadly(real):
        def call(*given, **named):
            if next(clock) == moment:
                raise Killed
            result = real(*given, **named)
            if next(clock) == moment:
                raise Killed
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", deadly(os.fsync))
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, deadly(getattr(Path, name)))
        try:
            build()
        except Killed:
            return True
    return False


def test_killed_at_any_moment_it_is_the_old_index_or_the_new_or_none(tmp_path, given, monkeypatch):
    """Over an older index of another corpus: at no moment do files of both stand together as one index."""
    monkeypatch.setattr(writers, "CHUNK_ROWS", 16)
    build(tmp_path / "whole", given)
    for moment in itertools.count():
        folder = tmp_path / str(moment)
        build(folder, given[::-1].copy(), source={"file": "older"})
        (folder / "usearch.index").write_bytes(b"of the older")
        died = dies(moment, lambda: build_index(folder, info_of(given), rows_of(30), encoder_of(given)))  # noqa: B023
        try:
            index = open_index(folder, "model a")
        except ArtifactError:
            pass
        else:
            wanted = given if index.info.source == {"file": "x"} else given[::-1]
            assert (index.vectors == l2_normalize(wanted)).all()
        build_index(folder, info_of(given), rows_of(30), encoder_of(given))
        assert files_of(folder) == files_of(tmp_path / "whole")
        if not died:
            break
    assert moment > 20


def test_a_finished_index_is_left_as_it_is(tmp_path, given):
    build(tmp_path, given)
    calls = []
    assert build_index(tmp_path, info_of(given), [], encoder_of(given, calls)) == 30
    assert calls == []
    assert build_index(tmp_path, info_of(given), rows_of(30), encoder_of(given, calls), rebuild=True) == 0
    assert len(calls) == 1


def test_an_index_of_something_else_is_replaced(tmp_path, given):
    build(tmp_path, given)
    index = build(tmp_path, given[:9] + 1, model_fingerprint="model b", source={"file": "y"})
    assert index.info.num_rows == 9 and (index.vectors == l2_normalize(given[:9] + 1)).all()


def test_an_unfinished_index_of_something_else_is_refused_unless_made_anew(tmp_path, given, monkeypatch):
    monkeypatch.setattr(writers, "CHUNK_ROWS", 8)
    with pytest.raises(Stopped):
        build_index(tmp_path, info_of(given), rows_of(30), encoder_of(given, stops_at=2))
    other = info_of(given, source={"file": "y"})
    with pytest.raises(ConfigError, match=r"file: 'x' there, 'y' here\); to start again, --rebuild"):
        build_index(tmp_path, other, rows_of(30), encoder_of(given))
    assert build_index(tmp_path, other, rows_of(30), encoder_of(given), rebuild=True) == 0
    assert open_index(tmp_path, "model a").info.source == {"file": "y"}


def test_a_damaged_index_is_made_anew(tmp_path, given):
    build(tmp_path, given)
    os.truncate(tmp_path / "vectors.npy", 300)
    index = build(tmp_path, given)
    assert (index.vectors == l2_normalize(given)).all()


def test_another_number_of_rows_makes_no_index(tmp_path, given):
    for rows in (rows_of(29), rows_of(31)):
        with pytest.raises(DataError, match="30 rows were counted"):
            build_index(tmp_path, info_of(given), rows, encoder_of(np.concatenate([given, given])))
        with pytest.raises(ArtifactError):
            open_index(tmp_path, "model a")


def test_a_form_that_is_not_for_search(tmp_path, given):
    with pytest.raises(ConfigError, match="'int8' is not for an index"):
        build(tmp_path, given, "int8")


def changed(folder, **values):
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "index.json").unlink(), "holds no index.json"),
        (lambda f: (f / "index.json").write_text("{"), "has format None"),
        (lambda f: changed(f, format=3), "has format 3, this bertune reads format 2; build the index again: --rebuild"),
        (lambda f: changed(f, rows=31), "damaged: its files do not belong together"),
        (lambda f: changed(f, form="float16"), "damaged: its files do not belong together"),
        (lambda f: changed(f, more=1), "damaged: .*more"),
        (lambda f: changed(f, model="model b"), r"was made by another model \(has model b, this is model a\); build the index again: --rebuild"),
        (lambda f: (f / "vectors.npy").unlink(), "damaged: .*vectors.npy"),
        (lambda f: (f / "offsets.npy").write_bytes(b""), "damaged: "),
        (lambda f: (f / "lines.npy").unlink(), "damaged: .*lines.npy"),
        (lambda f: (f / "texts.jsonl").write_bytes(b""), "damaged: "),
        (lambda f: os.truncate(f / "vectors.npy", 200), "damaged: "),
        (lambda f: os.truncate(f / "texts.jsonl", 100), "damaged: its files do not belong together"),
    ],
)  # fmt: skip
def test_a_damaged_folder_says_so(tmp_path, given, harm, message):
    build(tmp_path, given)
    harm(tmp_path)
    with pytest.raises(ArtifactError, match=message) as refused:
        open_index(tmp_path, "model a")
    assert "\n" not in str(refused.value)


def test_no_folder(tmp_path):
    with pytest.raises(ArtifactError, match="no such folder"):
        open_index(tmp_path / "none", "model a")


def test_a_row_that_cannot_be_read_is_named(tmp_path, given):
    build(tmp_path, given)
    texts = (tmp_path / "texts.jsonl").read_bytes()
    (tmp_path / "texts.jsonl").write_bytes(texts.replace(b'"id": 7', b'"id": x'))
    index = open_index(tmp_path, "model a")
    with pytest.raises(ArtifactError, match=r"texts.jsonl: row 8 cannot be read"):
        index.read_rows([3, 7])


# --- the approximate engine --------------------------------------------------------------------------------------------------------


def test_usearch_finds_nearly_what_exact_search_finds(tmp_path):
    pytest.importorskip("usearch")
    random = np.random.default_rng(0)
    given = random.normal(size=(500, 16)).astype(np.float32)
    queries = random.normal(size=(20, 16)).astype(np.float32)
    index = build(tmp_path, given)
    for _ in range(2):  # the second time from its file
        found, exact = index.search(queries, 10, engine="usearch"), index.search(queries, 10)
        same = sum(
            len({hit.row for hit in a} & {hit.row for hit in b}) for a, b in zip(found, exact, strict=True)
        )
        assert same > 180
        for a, b in zip(found, exact, strict=True):
            scores = {hit.row: hit.score for hit in b}
            assert all(hit.score == scores[hit.row] for hit in a if hit.row in scores)
            assert [(-hit.score, hit.row) for hit in a] == sorted((-hit.score, hit.row) for hit in a)
        assert (tmp_path / "usearch.index").exists()
    assert len(index.search(queries[:1], 1000, engine="usearch")[0]) <= 500


def test_a_graph_that_does_not_belong_is_made_anew(tmp_path):
    pytest.importorskip("usearch")
    given = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    index = build(tmp_path, given)
    for content in (b"", b"no graph", b"x" * 10_000):
        (tmp_path / "usearch.index").write_bytes(content)
        found = [
            hits[0].row for hits in index.search(given, 1, engine="usearch")
        ]  # several threads make the graph: it may miss some
        assert sum(row == place for place, row in enumerate(found)) >= 40


def test_without_usearch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(MissingExtra, match=r"'usearch'; install it with: pip install 'bertune\[search\]'"):
        in_memory(np.eye(3, dtype=np.float32)).nearest(np.eye(3, dtype=np.float32), 1, "usearch")
