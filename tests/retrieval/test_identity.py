"""What vectors are made of: files and indexes of other prompts, widths or contents are never used or mixed."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest
from tests.sentence_folders import save_sentence_folder
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.commands.search import SearchRequest
from bertune.retrieval import writers

pytest.importorskip("sentence_transformers")
TEXTS = [f"the dog {n} is {word}" for n in range(8) for word in ("good", "bad", "red")]


def run(*words):
    found = CliRunner().invoke(app, [str(word) for word in (*words, "--precision", "fp32")])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout, found.stderr


@pytest.fixture
def model(tiny, tmp_path):
    """A folder with prompts, of which one is the default."""
    folder = tmp_path / "model"
    prompts = {"query": "a cat ", "document": "big ", "nice": "very good "}
    save_sentence_folder(tiny, folder, prompts=prompts, default_prompt_name="nice")
    return folder


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("".join(f"{text}\n" for text in TEXTS))
    return file


def change(folder, **settings):
    """Change config_sentence_transformers.json."""
    path = folder / "config_sentence_transformers.json"
    values = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps(values))


def change_length(folder, tokens):
    for path in folder.rglob("*config.json"):
        values = json.loads(path.read_text())
        name = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}
        if path.name in name:
            path.write_text(json.dumps({**values, name[path.name]: tokens}))


CHANGES = {
    "prompt": (lambda f: change(f, prompts={"document": "small ", "nice": "very bad "}), r"prompt: '.*' there, '.*' here"),
    "default": (lambda f: change(f, default_prompt_name=None, prompts={"nice": "very good "}), r"prompt: '.*' there, '' here"),
    "width": (lambda f: change(f, truncate_dim=8), "8 here"),
    "length": (lambda f: change_length(f, 4), "model"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["prompt", "default", "width", "length"])
def test_a_killed_embed_does_not_go_on_with_another_model_folder(model, corpus, tmp_path, name, monkeypatch):
    harm, message = CHANGES[name]
    monkeypatch.setattr(writers, "CHUNK_ROWS", 8)
    with monkeypatch.context() as patch:
        real = writers._encode_chunk
        patch.setattr(
            writers, "_encode_chunk", lambda job, encode, texts, first: stop_at(16, first) or real(job, encode, texts, first)
        )  # fmt: skip
        with pytest.raises(Stopped):
            bertune_embed(model, corpus, tmp_path / "x.npy")
    harm(model)
    code, _, said = run("embed", model, corpus, "-o", tmp_path / "x.npy")
    assert code == 2 and "x.npy.part is the beginning of something else" in said.splitlines()[-1]
    assert re.search(message, said.splitlines()[-1])
    assert not (tmp_path / "x.npy").exists()


class Stopped(Exception):
    pass


def stop_at(row, first):
    if first == row:
        raise Stopped


def bertune_embed(model, corpus, output):
    from bertune.commands.embed import embed

    return embed(model, str(corpus), output, precision="fp32")


@pytest.mark.parametrize("name", ["prompt", "default", "width", "length"])
def test_an_index_of_another_model_folder_is_refused(model, corpus, name):
    harm, _ = CHANGES[name]
    assert run("search", model, corpus, "the dog")[0] == 0
    harm(model)
    code, out, said = run("search", model, corpus, "the dog")
    assert (code, out) == (2, "") and said.splitlines()[-1].endswith("build the index again: --rebuild")
    assert ("was made by another model" if name == "length" else "was made with another ") in said
    assert run("search", model, corpus, "the dog", "--rebuild")[0] == 0
    vectors = np.load(corpus.with_name("corpus.txt.index") / "vectors.npy").astype(np.float32)
    expected = bertune.load(model, precision="fp32").encode_document(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=2e-3)


def test_a_changed_query_prompt_needs_no_new_index(model, corpus):
    assert run("search", model, corpus, "the dog")[0] == 0
    change(model, prompts={"query": "a tree ", "document": "big ", "nice": "very good "})
    code, _, said = run("search", model, corpus, "the dog")
    assert code == 0 and "index: " not in said


@pytest.mark.parametrize("attribute", ["hidden_act", "layer_norm_eps", "num_attention_heads"])
def test_an_architecture_that_computes_otherwise_is_another_model(model, attribute):
    before = bertune.load(model).fingerprint()
    path = model / "config.json"
    values = json.loads(path.read_text())
    changed = {"hidden_act": "relu", "layer_norm_eps": 0.1, "num_attention_heads": 2}[attribute]
    assert values[attribute] != changed
    path.write_text(json.dumps({**values, attribute: changed}))
    assert bertune.load(model).fingerprint() != before
    path.write_text(json.dumps({**values, "hidden_dropout_prob": 0.5}))
    assert bertune.load(model).fingerprint() == before


# --- the content of a corpus decides --------------------------------------------------------------------


def hits(model, corpus, *words):
    code, out, said = run("search", model, corpus, "the dog 3 is bad", "-k", "2", "--json", *words)
    assert code == 0, said
    return json.loads(out)["hits"], said


def test_an_index_moves_with_its_corpus(model, corpus, tmp_path):
    before, said = hits(model, corpus)
    assert "index: 24 rows" in said
    os.utime(corpus, (1, 1))  # touch
    assert hits(model, corpus) == (before, "")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(corpus, elsewhere / "renamed.txt")  # cp
    shutil.copytree(corpus.with_name("corpus.txt.index"), elsewhere / "renamed.txt.index")
    assert hits(model, elsewhere / "renamed.txt") == (before, "")
    assert (
        hits(model, elsewhere / "renamed.txt", "--index", corpus.with_name("corpus.txt.index"))[0] == before
    )
    (elsewhere / "renamed.txt").unlink()  # rm: the index has the rows
    found, said = hits(model, elsewhere / "renamed.txt")
    assert found == before
    assert "renamed.txt is not there; the rows that" in said


def test_other_content_of_the_same_size_and_time_is_refused(model, corpus):
    hits(model, corpus)
    stat = corpus.stat()
    corpus.write_text(corpus.read_text().replace("bad", "red"))
    os.utime(corpus, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert corpus.stat().st_size == stat.st_size
    code, _, said = run("search", model, corpus, "the dog")
    assert code == 2 and "was made of other content than" in said.splitlines()[-1]


def test_other_ways_to_read_it_are_refused(model, tmp_path):
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("text,title\nthe dog,a cat\nthe tree,a house\n")
    assert hits(model, corpus)[0][0]["text"]
    code, _, said = run("search", model, corpus, "a cat", "--data", "data.columns={text: title}")
    assert code == 2 and "was made with another data.columns" in said.splitlines()[-1]


def test_the_column_that_is_read_is_part_of_an_index(model, tmp_path):
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("title,body\na cat,the dog\na house,the tree\n")
    assert hits(model, corpus)[0]
    request = SearchRequest(model, str(corpus))
    assert request.open()[1].info.source["text column"] == "title"
    path = tmp_path / "corpus.csv.index" / "index.json"
    values = json.loads(path.read_text())
    values["source"]["text column"] = "body"  # as a model that was trained on that column would have it
    path.write_text(json.dumps(values))
    code, _, said = run("search", model, corpus, "a cat")
    assert code == 2 and "was made with another text column: 'body' there, 'title' here" in said


def test_a_corpus_without_file_and_index_is_named(model, tmp_path):
    code, _, said = run("search", model, tmp_path / "none.txt", "the dog")
    assert code == 2 and "none.txt: no such file" in said


def test_a_corpus_that_changes_while_it_is_read_makes_no_file(model, corpus, tmp_path, monkeypatch):
    from bertune.retrieval.corpus import Corpus

    real = Corpus.scan

    def scan(self):
        summary = real(self)
        corpus.write_text(corpus.read_text().replace("bad", "red"))
        return summary

    monkeypatch.setattr(Corpus, "scan", scan)
    code, _, said = run("embed", model, corpus, "-o", tmp_path / "x.npy")
    assert code == 2 and "has changed while it was read" in said
    assert not (tmp_path / "x.npy").exists()


# --- rows and lines -------------------------------------------------------------------------------------

GAPS = {
    "bad rows": ('{"id": 0, "text": "cat"}\n{"id": 1, "text": ""}\n{"id": 2, "text": "dog"}\n{"id": 3, "text": null}\n'
                 '{"id": 4, "text": "tree"}\n', [1, 3, 5]),
    "blank lines": ('{"id": 0, "text": "cat"}\n\n{"id": 2, "text": "dog"}\n\n\n{"id": 4, "text": "tree"}\n', [1, 3, 6]),
    "an array": ('[\n  {"id": 0,\n   "text": "cat"},\n  {"id": 2,\n   "text": "dog"},\n  {"id": 4, "text": "tree"}\n]\n',
                 [2, 4, 6]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(GAPS))
def test_each_vector_says_where_its_row_stands(model, tmp_path, name):
    content, lines = GAPS[name]
    corpus, output = tmp_path / "corpus.json", tmp_path / "x.npy"
    corpus.write_text(content)
    settings = ["data.bad_rows=skip", "data.format=jsonl"]
    code, _, said = run("embed", model, corpus, *settings, "-o", output)
    assert code == 0, said
    assert f"{output}.rows.tsv says on which line of {corpus}" in said
    written = (tmp_path / "x.npy.rows.tsv").read_text().splitlines()
    assert written == ["row\tline", *(f"{row}\t{line}" for row, line in enumerate(lines))]
    expected = bertune.load(model, precision="fp32").encode(["cat", "dog", "tree"])
    np.testing.assert_allclose(np.load(output), expected, atol=1e-5)
    code, out, _ = run(
        "search", model, corpus, "dog", "-k", "3", *(word for s in settings for word in ("--data", s))
    )
    assert code == 0
    place = {f"{corpus}:{line}  " for line in lines}
    assert all(any(where in line for where in place) for line in out.splitlines()[1:])
    assert f"{corpus}:{lines[1]}  2 | dog" in out


def test_without_gaps_there_is_no_map_and_an_older_one_goes(model, corpus, tmp_path):
    (tmp_path / "x.npy.rows.tsv").write_text("row\tline\n0\t7\n")
    assert run("embed", model, corpus, "-o", tmp_path / "x.npy")[0] == 0
    assert not list(tmp_path.glob("x.npy.*"))
    (tmp_path / "x.npy.rows.tsv").write_text("mine\n")
    assert run("embed", model, corpus, "-o", tmp_path / "x.npy")[0] == 0
    assert (tmp_path / "x.npy.rows.tsv").read_text() == "mine\n"


def test_a_header_is_no_gap(model, tmp_path):
    (tmp_path / "corpus.csv").write_text("id,text\n1,a dog\n2,a cat\n")
    code, _, said = run("embed", model, tmp_path / "corpus.csv", "-o", tmp_path / "x.npy")
    assert code == 0 and "text = column 'text'; not used: 'id'" in said
    assert not list(tmp_path.glob("x.npy.*"))


def test_columns_of_a_row_do_not_hide_what_was_found(model, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "a dog", "score": 99, "line": "x"}\n')
    (hit,), _ = hits(model, corpus)
    assert (hit["score"], hit["line"], hit["row"]) == (99, "x", 1)
    assert hit["line_"] == 1 and -1 <= hit["score_"] <= 1


def test_pairs_have_their_lines(model, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "a dog"}\n\n{"text": "the tree is red"}\n{"text": "a dog"}\n')
    code, out, _ = run("search", model, corpus, "--pairs", "--threshold", "0.999")
    assert code == 0 and f"{corpus}:1  a dog" in out and f"{corpus}:4  a dog" in out
    request = SearchRequest(model, str(corpus))
    assert request.open()[1].lines.tolist() == [1, 3, 4]
