"""`bertune embed` and `bertune search`, as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.encoders.test_int8 import likeness, on_such_processors
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.errors import ConfigError
from bertune.retrieval import writers

ROWS = [
    {"id": n, "text": f"the {noun} is {word}"}
    for n, (noun, word) in enumerate((a, b) for a in ("dog", "cat", "tree") for b in ("good", "bad", "red"))
]


def run(*words):
    found = CliRunner().invoke(app, [str(w) for w in words])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout, found.stderr


@pytest.fixture(scope="module")
def place(tiny, tmp_path_factory):
    """A folder with a model of sentence vectors, one of labels, and a corpus."""
    place = tmp_path_factory.mktemp("corpora")
    (place / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS), encoding="utf-8")
    pairs = [{"text": r["text"], "text_b": r["text"].replace("the", "a")} for r in ROWS]
    (place / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in pairs), encoding="utf-8")
    (place / "labels.csv").write_text(
        "text,label\n" + "".join(f"{r['text']},{r['id'] % 2}\n" for r in ROWS * 2), encoding="utf-8"
    )
    files = [f"data.train={place / 'pairs.jsonl'}", f"data.dev={place / 'pairs.jsonl'}"]
    for seed in (1, 2):
        bertune.train("embed", [f"model={tiny}", f"out={place / f'model{seed}'}", f"seed={seed}", "train.max_steps=2",
                                "train.learning_rate=1e-2", *files], quiet=True)  # fmt: skip
    bertune.train(
        "classify",
        [
            f"model={tiny}",
            f"out={place / 'labels'}",
            "train.max_steps=1",
            f"data.train={place / 'labels.csv'}",
        ],
        quiet=True,
    )
    return place


@pytest.fixture
def expected(place):
    return bertune.load(place / "model1", precision="fp32").encode([r["text"] for r in ROWS])


def test_vectors_of_a_file(place, expected, tmp_path):
    code, out, said = run(
        "embed", place / "model1", place / "corpus.jsonl", "-o", tmp_path / "x.npy", "--precision", "fp32"
    )
    assert (code, out) == (0, ""), said
    np.testing.assert_allclose(np.load(tmp_path / "x.npy", mmap_mode="r"), expected, atol=1e-5)
    assert f"9 vectors written to {tmp_path / 'x.npy'}" in said
    assert sorted(os.listdir(tmp_path)) == ["x.npy"]


def test_vectors_beside_their_rows(place, expected, tmp_path):
    import pyarrow.parquet as pq

    options = ["--normalize", "--truncate-dim", "8", "--dtype", "float16", "--precision", "fp32"]
    assert (
        run("embed", place / "model1", place / "corpus.jsonl", "-o", tmp_path / "x.parquet", *options)[0] == 0
    )
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [{"id": r["id"], "text": r["text"]} for r in rows] == ROWS
    cut = expected[:, :8] / np.linalg.norm(expected[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose([r["embedding"] for r in rows], cut, atol=2e-3)


def test_lines_of_standard_output(place, expected):
    code, out, _ = run(
        "embed", place / "model1", place / "corpus.jsonl", "--precision", "fp32", "--prompt", "not "
    )
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [{k: r[k] for k in ("id", "text")} for r in lines] == ROWS
    texts = ["not " + r["text"] for r in ROWS]
    np.testing.assert_allclose(
        [r["embedding"] for r in lines],
        bertune.load(place / "model1", precision="fp32").encode(texts),
        atol=1e-5,
    )
    assert not np.allclose([r["embedding"] for r in lines], expected, atol=1e-2)


def test_standard_input(place):
    process = subprocess.run(
        [sys.executable, "-m", "bertune", "embed", str(place / "model1"), "-"],
        input="a dog\na cat\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line)["text"] for line in process.stdout.splitlines()] == ["a dog", "a cat"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [("pairs.jsonl", {}), ("scored.jsonl", {"min": 0.0, "median": 4.0, "mean": 4.0, "max": 8.0})],
)
def test_a_look_at_pairs(place, tiny, rows, expected):
    scored = [{"text": r["text"], "text_b": "a cat", "label": r["id"]} for r in ROWS]
    (place / "scored.jsonl").write_text("".join(json.dumps(r) + "\n" for r in scored))
    task = "embed" if rows == "pairs.jsonl" else "match"
    code, out, said = run("inspect", place / rows, "--task", task, "--model", tiny, "--json")
    assert code == 0, said
    assert json.loads(out)["targets"] == expected
    assert run("inspect", place / rows, "--task", task, "--model", tiny)[0] == 0


def test_a_search_finds_what_is_nearest(place, expected, tmp_path):
    index = ["--index", tmp_path / "index", "--precision", "fp32"]
    code, out, said = run(
        "search",
        place / "model1",
        place / "corpus.jsonl",
        "a dog is good",
        "a red tree",
        "-k",
        "3",
        "--json",
        *index,
    )
    assert code == 0, said
    assert "index: 9 rows" in said
    queries = bertune.load(place / "model1", precision="fp32").encode(["a dog is good", "a red tree"])
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    for line, query in zip(map(json.loads, out.splitlines()), queries, strict=True):
        scores = unit @ (query / np.linalg.norm(query))
        assert [h["score"] for h in line["hits"]] == pytest.approx(
            sorted(scores.tolist(), reverse=True)[:3], abs=2e-3
        )
        assert all(ROWS[h["row"] - 1]["text"] == h["text"] for h in line["hits"])
    (tmp_path / "queries.txt").write_text("a dog is good\na red tree\n")
    again = run(
        "search",
        place / "model1",
        place / "corpus.jsonl",
        "--queries",
        tmp_path / "queries.txt",
        "-k",
        "3",
        "--json",
        *index,
    )
    assert again[1] == out
    assert "index: 9 rows" not in again[2]
    plain = run("search", place / "model1", place / "corpus.jsonl", "a dog is good", "-k", "2", *index)[
        1
    ].splitlines()
    assert plain[0] == "a dog is good"
    assert len(plain) == 3


def test_near_duplicates(place, tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("the dog is good\na red tree\nthe dog is good\n天 地\n")
    code, out, said = run("search", place / "model1", file, "--pairs", "--threshold", "0.9999", "--json")
    assert code == 0, said
    (pair,) = map(json.loads, out.splitlines())
    assert pair["rows"] == [1, 3]
    assert pair["score"] == pytest.approx(1, abs=1e-3)
    assert "1 pairs" in said


def test_an_index_knows_its_model_and_its_file(place, tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("the dog is good\na red tree\n")
    assert run("search", place / "model1", file, "dog")[0] == 0
    code, out, said = run("search", place / "model2", file, "dog")
    assert (code, out) == (2, "")
    assert "was made by another model" in said.splitlines()[-1]
    file.write_text("the dog is good\na red tree\na cat\n")
    code, _, said = run("search", place / "model1", file, "dog")
    assert code == 2
    assert "was made of other content than" in said.splitlines()[-1]
    assert "--rebuild" in said.splitlines()[-1]
    code, out, _ = run("search", place / "model2", file, "dog", "--rebuild")
    assert (code, len(out.splitlines())) == (0, 4)


BAD = {
    "another task": (["embed", "labels", "corpus.jsonl"], "is a model of task classify, which gives no sentence vectors"),
    "no model": (["embed", "nothing", "corpus.jsonl"], "nothing: no such folder"),
    "no file": (["embed", "model1", "corpus.json"], "no such file; did you mean 'corpus.jsonl'"),
    "unknown name": (["embed", "model1", "corpus.jsonl", "-o", "x.txt"], "x.txt"),
    "unknown form": (["embed", "model1", "corpus.jsonl", "-o", "x.npy", "--dtype", "int7"], "'int7' is none of float32"),
    "too wide": (["embed", "model1", "corpus.jsonl", "--truncate-dim", "33"], "33 is not from 1 to 32"),
    "no prompt": (["embed", "model1", "corpus.jsonl", "--prompt-name", "query"], "no prompt 'query'; this model has none"),
    "input read once": (["embed", "model1", "-", "-o", "x.npy"], "standard input can be read only once"),
    "no text": (["embed", "model1", "labels.csv", "data.columns={text: words}"], "no column 'words' for 'text'"),
    "empty text": (["embed", "model1", "empty.jsonl", "-o", "x.npy"], "empty.jsonl:2: 'text' is empty"),
    "setting of training": (["embed", "model1", "corpus.jsonl", "data.max_length=8"], "only these can be given here"),
    "two prompts": (["embed", "model1", "corpus.jsonl", "--prompt", "a ", "--prompt-name", "query"], "two prompts are given"),
    "prompt name is empty": (["embed", "model1", "corpus.jsonl", "--prompt-name", ""], "prompt_name: is empty"),
    "form without a file": (["embed", "model1", "corpus.jsonl", "--dtype", "nonsense"], "'nonsense' is none of float32"),
    "pairs of a query": (["search", "model1", "corpus.jsonl", "dog", "--pairs"], "QUERY: without effect here"),
    "pairs of a file": (["search", "model1", "corpus.jsonl", "--pairs", "--queries", "corpus.jsonl"], "--queries: without effect"),
    "pairs and -k": (["search", "model1", "corpus.jsonl", "--pairs", "-k", "3", "--engine", "exact"], "-k, --engine: without"),
    "threshold without pairs": (["search", "model1", "corpus.jsonl", "dog", "--threshold", "0.9"], "--threshold: without effect"),
    "most without pairs": (["search", "model1", "corpus.jsonl", "dog", "--max-pairs", "7"], "--max-pairs: without effect"),
    "query data without queries": (["search", "model1", "corpus.jsonl", "dog", "--query-data", "data.format=csv"], "--query-data: without effect"),
    "a setting as a query": (["search", "model1", "corpus.jsonl", "data.format=csv", "dog"], "is a setting, not a query; for CORPUS type --data"),
    "an empty query": (["search", "model1", "corpus.jsonl", "dog", " "], "a query is empty"),
    "a Hub id offline": (["embed", "someone/some-model", "corpus.jsonl"], "someone/some-model: no such folder; nor can it be had from the Hub: "),
    "a Hub id to search with": (["search", "some-model", "corpus.jsonl", "dog"], "some-model: no such folder; nor can it be had from the Hub: "),
    "a path of a model": (["embed", "./some/model", "corpus.jsonl"], "some/model: no such folder; give a folder"),
    "a cache list by age": (["cache", "list", "--older-than", "3"], "--older-than: without effect here"),
    "nothing to search": (["search", "model1", "corpus.jsonl"], "give a query, --queries FILE, or --pairs"),
    "unknown engine": (["search", "model1", "corpus.jsonl", "dog", "--engine", "annoy"], "'annoy' is none of exact, usearch"),
    "single text to predict": (["predict", "model1", "corpus.jsonl"], "corpus.jsonl:1: predict compares two texts"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(place, name, monkeypatch):
    monkeypatch.chdir(place)
    Path("empty.jsonl").write_text('{"text": "a"}\n{"text": " "}\n')
    words, expected = BAD[name]
    code, out, said = run(*words)
    assert code == 2, said
    assert out == ""
    assert expected in said.splitlines()[-1]
    assert not list(Path().glob("x.*"))


def test_vectors_of_standard_output_have_the_form_that_is_asked_for(place):
    texts = [row["text"] for row in ROWS]
    model = bertune.load(place / "model1", precision="fp32")
    for form in ("float16", "int8", "binary", "ubinary"):
        code, out, said = run(
            "embed", place / "model1", place / "corpus.jsonl", "--dtype", form, "--precision", "fp32"
        )
        assert code == 0, said
        found = np.array([json.loads(line)["embedding"] for line in out.splitlines()])
        expected = model.encode(texts, precision=form)
        assert found.shape == expected.shape
        assert np.abs(found - expected.astype(float)).max() <= {"float16": 1e-3, "int8": 1}.get(form, 0)


def test_an_embedding_in_the_file_is_kept(place, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a dog", "embedding": "mine"}\n')
    _, out, _ = run("embed", place / "model1", tmp_path / "x.jsonl")
    row = json.loads(out)
    assert row["embedding"] == "mine" and len(row["embedding_"]) == 32


def test_an_empty_prompt_is_said(place):
    code, out, said = run("embed", place / "model1", place / "corpus.jsonl", "--prompt", "")
    assert code == 0 and "prompt: is empty, so nothing is put before a text" in said
    assert out == run("embed", place / "model1", place / "corpus.jsonl")[1]


@pytest.fixture
def short(place, tmp_path):
    """A copy of the model that reads 6 tokens."""
    shutil.copytree(place / "model1", tmp_path / "short")
    path = tmp_path / "short" / "bertune.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_length": 6}))
    return tmp_path / "short"


@pytest.mark.parametrize("verb", ["file", "stream", "index"])
def test_cut_texts_are_counted_over_all_chunks_at_the_end(short, tmp_path, monkeypatch, verb):
    """The long ones come late, and some are equal."""
    monkeypatch.setattr(writers, "CHUNK_ROWS", 4)
    monkeypatch.setattr("bertune.commands.embed.STREAM_CHUNK_ROWS", 4)
    rows = "a dog\n" * 7 + "the dog is good and red\n" * 3 + "a very big dog is here\n"
    (tmp_path / "late.txt").write_text(rows)
    words = {
        "file": ["embed", short, tmp_path / "late.txt", "-o", tmp_path / "x.npy"],
        "stream": ["embed", short, tmp_path / "late.txt"],
        "index": ["search", short, tmp_path / "late.txt", "dog"],
    }[verb]
    code, _, said = run(*words)
    assert code == 0
    assert said.count("were cut") == 1
    # 7 rows of 4 tokens and 4 of 8, of which 2 each are cut
    assert "data: 4 of 11 rows are longer than max_length 6 and were cut, 13.3% of all tokens" in said
    assert "of the first" not in said


def test_a_cut_query_is_said(short, place, tmp_path):
    words = [short, place / "corpus.jsonl", "the dog is good and red", "dog", "--index", tmp_path / "index"]
    _, _, said = run("search", *words)
    assert "queries: 1 of 2 rows are longer than max_length 6 and were cut" in said


def test_columns_of_queries_are_used(place, tmp_path):
    (tmp_path / "q.csv").write_text("id;words\nq7;a dog\nq8;a tree\n")
    words = ["search", place / "model1", place / "corpus.jsonl", "--queries", tmp_path / "q.csv", "-k", "1",
             "--json", "--index", tmp_path / "index"]  # fmt: skip
    settings = ["--query-data", "data.delimiter=semicolon", "--query-data", "data.columns={text: words}"]
    code, out, said = run(*words, *settings)
    assert code == 0, said
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["query"] for line in lines] == ["a dog", "a tree"]
    assert [line["query_row"]["id"] for line in lines] == ["q7", "q8"]
    assert "q.csv: text = column 'words'; not used: 'id'" in said


def test_a_hub_id_opens_a_folder_of_the_cache(place, tmp_path, monkeypatch, expected):
    """As huggingface_hub lays it out, offline."""
    cache = tmp_path / "hub" / "models--someone--some-model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    shutil.copytree(place / "model1", cache / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("embed", "search"):
        words = {"embed": [], "search": ["dog", "--index", tmp_path / "index"]}[name]
        code, _, said = run(name, "someone/some-model", place / "corpus.jsonl", *words)
        assert code == 0, said
    found = bertune.load("someone/some-model", precision="fp32").encode([row["text"] for row in ROWS])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_settings_of_a_model_can_be_set_and_slips_are_named(place):
    model = bertune.load(place / "model1", precision="fp32")
    text, print_of = "the dog is good and red", model.fingerprint()
    whole = model.encode(text)
    model.max_seq_length = 5
    assert model.max_seq_length == 5 and model.fingerprint() != print_of
    assert not np.allclose(model.encode(text), whole, atol=1e-3)
    for name in ("max_seq_len", "max_length", "prompt_names", "truncate_dims"):
        with pytest.raises(
            AttributeError, match="is no setting of a model of sentence vectors; did you mean"
        ):
            setattr(model, name, 5)
    for tokens in (0, 10_000, "5", None):
        with pytest.raises(ConfigError, match=r"max_seq_length: got .*, must be from 3 to"):
            model.max_seq_length = tokens
    model.anything_else = 1


PROGRAM = """
import sys
from bertune.retrieval import writers
writers.CHUNK_ROWS = 8
from bertune.cli import main
sys.argv = ["bertune", *sys.argv[1:]]
"""


def embed_and_kill(place, tmp_path):
    """Begin vectors of 4,000 rows in fp32 and kill the process amid them; return the corpus and the file that is not there."""
    file, killed = tmp_path / "corpus.txt", tmp_path / "killed.npy"
    file.write_text("".join(f"the dog {n} is good\n" for n in range(4000)))
    command = [
        sys.executable,
        "-c",
        PROGRAM + "main()",
        "embed",
        str(place / "model1"),
        str(file),
        "--precision",
        "fp32",
        "-o",
        str(killed),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    record = tmp_path / "killed.npy.part.json"
    while process.poll() is None and not (record.exists() and json.loads(record.read_text())["rows"] > 100):
        time.sleep(0.005)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    return file, killed


def test_a_killed_call_goes_on(place, tmp_path, monkeypatch):
    file, killed = embed_and_kill(place, tmp_path)
    whole = tmp_path / "whole.npy"
    monkeypatch.setattr(writers, "CHUNK_ROWS", 8)
    code, _, said = run("embed", place / "model1", file, "--precision", "fp32", "-o", killed)
    assert code == 0, said
    assert "of 4000 were done already" in said
    assert run("embed", place / "model1", file, "--precision", "fp32", "-o", whole)[0] == 0
    np.testing.assert_allclose(np.load(killed), np.load(whole), atol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["corpus.txt", "killed.npy", "whole.npy"]


def test_a_killed_call_does_not_go_on_in_another_precision(place, tmp_path, monkeypatch):
    file, killed = embed_and_kill(place, tmp_path)
    monkeypatch.setattr(writers, "CHUNK_ROWS", 8)
    code, _, said = run("embed", place / "model1", file, "--precision", "bf16", "-o", killed)
    assert (code, killed.exists()) == (2, False)
    assert "precision: 'fp32' there, 'bf16' here" in said


@on_such_processors
def test_vectors_in_int8(place, expected, tmp_path):
    code, _, said = run(
        "embed", place / "model1", place / "corpus.jsonl", "-o", tmp_path / "x.npy", "--precision", "int8"
    )
    assert code == 0, said
    found = np.load(tmp_path / "x.npy")
    assert likeness(torch.from_numpy(found), torch.from_numpy(expected)) > 0.99
    assert not np.allclose(found, expected, atol=1e-5)
    assert np.array_equal(
        found, bertune.load(place / "model1", precision="int8").encode([r["text"] for r in ROWS])
    )


@on_such_processors
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_labels_in_int8(verb, place):
    code, out, said = run(verb, place / "labels", place / "labels.csv", "--precision", "int8")
    assert code == 0, said
    assert out.count("\n") > 1


def test_training_in_int8_is_refused(place, tiny):
    code, _, said = run(
        "train", "classify", f"model={tiny}", f"data.train={place / 'labels.csv'}", "train.precision=int8"
    )
    assert code == 2
    assert "train.precision" in said and "int8" in said


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_memory_does_not_grow_with_the_corpus(place, tmp_path):
    program = PROGRAM.replace("= 8", "= 1024") + (
        "import atexit, resource; atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))\nmain()\n"
    )
    peaks = []
    for rows in (3000, 60000):
        file = tmp_path / f"{rows}.txt"
        file.write_text("".join(f"the dog {n} is {'good ' * (n % 7)}\n" for n in range(rows)))
        command = [
            sys.executable,
            "-c",
            program,
            "embed",
            str(place / "model1"),
            str(file),
            "-o",
            str(tmp_path / f"{rows}.npy"),
        ]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        assert np.load(tmp_path / f"{rows}.npy", mmap_mode="r").shape == (rows, 32)
    assert peaks[1] < 1.1 * peaks[0], peaks
