"""Several processes write one output at once: it is whole and of one of them, and the others say who writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.sentence_folders import save_sentence_folder

import bertune
from bertune.errors import ConfigError
from bertune.files import locked

NUM_ROWS = 48
PROGRAM = """
import sys, time
from pathlib import Path
from bertune.retrieval import writers
from bertune.inference import pipeline, sentence_pipeline
writers.CHUNK_ROWS = pipeline.CHUNK_ROWS = 8
gate = sys.argv.pop(1)
calls = []
def gated(real):
    def call(self, *given):
        calls.append(1)
        while gate and len(calls) == 3 and not Path(gate).exists():
            time.sleep(0.01)
        return real(self, *given)
    return call
sentence_pipeline.SentencePipeline.embed_texts = gated(sentence_pipeline.SentencePipeline.embed_texts)
pipeline.Pipeline._encode = gated(pipeline.Pipeline._encode)
from bertune.cli import main
sys.argv = ["bertune", *sys.argv[1:]]
main()
"""
"""bertune in chunks of 8 rows; it waits in the third of them until the file of its first argument is there."""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")


@pytest.fixture(scope="module")
def place(tiny, tmp_path_factory):
    """Two models of sentence vectors, which differ, and files of texts and of pairs."""
    pytest.importorskip("sentence_transformers")
    place = tmp_path_factory.mktemp("concurrent")
    for name, pooling in (("one", "mean"), ("two", "cls")):
        save_sentence_folder(tiny, place / name, pooling)
    texts = [f"the dog is good {n} times" for n in range(NUM_ROWS)]
    (place / "corpus.txt").write_text("".join(f"{text}\n" for text in texts))
    (place / "pairs.csv").write_text("text,text_b\n" + "".join(f"{text},a cat\n" for text in texts))
    return place


def start(*words, gate=""):
    command = [sys.executable, "-c", PROGRAM, str(gate), *map(str, words), "--precision", "fp32"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, said = process.communicate(timeout=120)
    return process.returncode, out, said


@contextmanager
def writer(file, gate, *words):
    """A process that is writing, and waits for `gate`: `file` appears when it has begun."""
    process = start(*words, gate=gate)
    try:
        while not file.exists() and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def gate(tmp_path_factory):
    return tmp_path_factory.mktemp("gate") / "open"


def vectors_of(place, name):
    texts = (place / "corpus.txt").read_text().splitlines()
    return bertune.load(place / name, precision="fp32").encode(texts)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


INDEX_FILES = ["index.json", "lines.npy", "offsets.npy", "texts.jsonl", "vectors.npy"]


def test_two_models_never_share_an_index(place, tmp_path, gate):
    index = tmp_path / "index"
    words = ["search", place / "one", place / "corpus.txt", "a dog", "--index", index]
    with writer(index / "vectors.npy.part.json", gate, *words) as first:
        second = start("search", place / "two", *words[2:])
        said = second.stderr.readline()
        assert f"is being built by process {first.pid} on " in said and "waiting for its end" in said
        gate.touch()
        assert end(first)[0] == 0
        code, out, said = end(second)
        assert (code, out) == (2, "") and "was made by another model" in said.splitlines()[-1]
    np.testing.assert_allclose(np.load(index / "vectors.npy"), unit(vectors_of(place, "one")), atol=1e-3)
    assert names_in(index) == INDEX_FILES


def test_of_three_calls_one_builds_the_index_and_all_use_it(place, tmp_path):
    words = ["search", place / "one", place / "corpus.txt", "a dog", "--json", "--index", tmp_path / "index"]
    results = [end(process) for process in [start(*words) for _ in range(3)]]
    assert [code for code, _, _ in results] == [0] * 3, results
    assert len({out for _, out, _ in results}) == 1
    assert sum(f"index: {NUM_ROWS} rows" in said for _, _, said in results) == 1
    assert names_in(tmp_path / "index") == INDEX_FILES


def test_who_waits_goes_on_where_a_killed_call_stopped(place, tmp_path, gate):
    index = tmp_path / "index"
    words = ["search", place / "one", place / "corpus.txt", "a dog", "--index", index]
    with writer(index / "vectors.npy.part.json", gate, *words) as first:
        second = start(*words)
        assert "waiting for its end" in second.stderr.readline()
        first.send_signal(signal.SIGKILL)
        assert end(second)[0] == 0
    np.testing.assert_allclose(np.load(index / "vectors.npy"), unit(vectors_of(place, "one")), atol=1e-3)
    assert names_in(index) == INDEX_FILES


def test_an_index_built_again_changes_nothing_for_who_searches_the_old_one(place, tmp_path):
    from bertune.commands.search import SearchRequest, search

    request = SearchRequest(place / "one", str(place / "corpus.txt"), index_folder=tmp_path / "index")
    search(request, ["a dog"])
    pipeline, index = request.open()
    (tmp_path / "other.txt").write_text("a cat\n" * 99)
    other = SearchRequest(
        place / "two", str(tmp_path / "other.txt"), index_folder=tmp_path / "index", rebuild=True
    )
    assert search(other, ["a dog"], 1)[0][0].raw == {"text": "a cat"}
    hits = index.search(pipeline.encode_query(["the dog is good 7 times"]), 1)[0]
    assert hits[0].raw == {"text": "the dog is good 7 times"} and hits[0].line == 8


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_a_second_embed_is_refused_and_says_who_writes(place, tmp_path, gate, name):
    target = tmp_path / name
    words = ["embed", place / "one", place / "corpus.txt", "-o", target]
    with writer(tmp_path / f"{name}.part.json", gate, *words) as first:
        code, _, said = end(start("embed", place / "two", *words[2:]))
        assert code == 2
        assert f"{name}: is being written by process {first.pid} on " in said.splitlines()[-1]
        assert "wait until that has ended, or give another name" in said.splitlines()[-1]
        gate.touch()
        assert end(first)[0] == 0
    if name == "x.npy":
        np.testing.assert_allclose(np.load(target), vectors_of(place, "one"), atol=1e-5)
    assert names_in(tmp_path) == [name]


def test_a_lock_of_a_killed_process_holds_nobody_up(place, tmp_path, gate):
    target = tmp_path / "x.npy"
    words = ["embed", place / "one", place / "corpus.txt", "-o", target]
    record = tmp_path / "x.npy.part.json"
    with writer(record, gate, *words) as first:
        while json.loads(record.read_text())["rows"] < 8:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert (tmp_path / "x.npy.part.lock").exists()
    code, _, said = end(start(*words))
    assert code == 0 and f"of {NUM_ROWS} were done already" in said
    np.testing.assert_allclose(np.load(target), vectors_of(place, "one"), atol=1e-5)
    assert names_in(tmp_path) == ["x.npy"]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_second_predict_is_refused_and_says_who_writes(place, tmp_path, gate, name):
    words = ["predict", place / "one", place / "pairs.csv", "-o", tmp_path / name]
    with writer(tmp_path / f"{name}.part", gate, *words) as first:
        code, _, said = end(start(*words))
        assert code == 2
        assert f"{name}: is being written by process {first.pid} on " in said.splitlines()[-1]
        gate.touch()
        assert end(first)[0] == 0
    assert len((tmp_path / name).read_text().splitlines()) == NUM_ROWS + (name == "out.csv")
    assert names_in(tmp_path) == [name]


# --- the lock itself ------------------------------------------------------------------------------------


def test_threads_wait_for_each_other(tmp_path):
    """Each adds 1 to a number in a file; none is lost, and no lock stays behind."""
    file, waited = tmp_path / "number", []
    file.write_text("0")

    def add():
        for _ in range(20):
            with locked(file, waited.append):
                number = int(file.read_text())
                time.sleep(0.0005)
                file.write_text(str(number + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text() == "80" and waited
    assert names_in(tmp_path) == ["number"]


def test_a_held_lock_is_an_error_and_a_failed_block_frees_it(tmp_path):
    file = tmp_path / "x"
    with pytest.raises(KeyError), locked(file):
        with pytest.raises(ConfigError, match="is being written by process"), locked(file):
            pass
        raise KeyError
    with locked(file):
        assert names_in(tmp_path) == ["x.part.lock", "x.part.owner"]
    with locked(tmp_path / "y"), locked(file):
        pass


def test_a_lock_makes_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written: No such file"), locked(tmp_path / "none" / "x"):
        pass
    assert not Path(tmp_path / "none").exists()
