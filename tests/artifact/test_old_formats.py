"""What bertune c8c62a7 (format 1) wrote still opens: saved folders, files of vectors; its indexes are built again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.config import renames
from bertune.config.load import read_config
from bertune.inference.sentence_pipeline import SentencePipeline

FIXTURES = Path(__file__).parents[1] / "fixtures" / "format-1"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
NEAR = 1e-5
"""Between two machines; on one the numbers are equal."""
CORPUS_TIME = 1_700_000_000
ON_CPU = ["--device", "cpu", "--precision", "fp32"]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A copy of the fixtures, with the time and the place of the corpus that its index records."""
    folder = tmp_path_factory.mktemp("format") / "copy"
    shutil.copytree(FIXTURES, folder)
    corpus, index = folder / "vectors" / "corpus.csv", folder / "vectors" / "corpus.csv.index" / "index.json"
    os.utime(corpus, (CORPUS_TIME, CORPUS_TIME))
    content = json.loads(index.read_text(encoding="utf-8"))
    content["source"]["file"] = str(corpus.resolve())
    index.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def vectors(scratch, tmp_path, monkeypatch):
    """A copy of the folder of vectors, to work in."""
    shutil.copytree(scratch / "vectors", tmp_path / "vectors")
    shutil.copytree(scratch / "embed", tmp_path / "embed")
    index = tmp_path / "vectors" / "corpus.csv.index" / "index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    content["source"]["file"] = str((tmp_path / "vectors" / "corpus.csv").resolve())
    index.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "vectors")
    return tmp_path / "vectors"


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def as_json(prediction):
    value = prediction.value
    if isinstance(value, tuple):
        value = [v._asdict() if hasattr(v, "_asdict") else v for v in value]
    return {
        "value": value,
        "confidence": prediction.confidence,
        "by_label": prediction.probabilities,
        "tags": None if prediction.tags is None else [list(pair) for pair in prediction.tags],
        "vectors": None if prediction.vectors is None else [v.tolist() for v in prediction.vectors],
    }


def assert_near(found, expected):
    """Compare values that JSON can hold: numbers nearly, everything else exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_near(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=NEAR)
    else:
        assert found == expected


@pytest.mark.parametrize("name", ["classify", "multi", "regress", "tag", "match", "embed"])
def test_saved_folders_predict_the_same(scratch, name):
    expected = EXPECTED[name]
    pipeline = bertune.load(scratch / name, device="cpu", precision="fp32")
    is_pair = name in {"match", "embed"}
    inputs = [tuple(texts) for texts in expected["inputs"]] if is_pair else expected["inputs"]
    assert_near([as_json(p) for p in pipeline.predict(inputs)], expected["outputs"])
    if is_pair:
        assert isinstance(pipeline, SentencePipeline)
        encoded = pipeline.encode(expected["encode"]["inputs"])
        assert_near(encoded.tolist(), expected["encode"]["outputs"])


@pytest.mark.parametrize("name", ["classify", "tag"])
def test_saved_folders_are_scored(scratch, name, monkeypatch):
    monkeypatch.chdir(scratch)
    file = {"classify": "labels", "tag": "spans"}[name]
    evaluation = bertune.evaluate(scratch / name, f"data/{file}.jsonl", device="cpu", precision="fp32")
    assert evaluation.scores.main_value > 0.9
    assert evaluation.loss == evaluation.loss


def test_settings_of_saved_folders_have_their_new_names(scratch):
    settings = bertune.artifact.read.read_artifact(scratch / "tag").run_config
    assert (settings.data.dev_fraction, settings.train.micro_batches) == (0.2, 2)
    assert settings.options["window_overlap"] == 4


@pytest.mark.parametrize("name", ["run.yaml", "run-tag.yaml", "run-match.yaml", "run-embed.yaml"])
def test_run_files_answer_with_every_new_name(scratch, name, monkeypatch):
    monkeypatch.chdir(scratch)
    result = CliRunner().invoke(app, ["train", name, "out=never"])
    assert result.exit_code == 2
    settings = yaml.safe_load((scratch / name).read_text(encoding="utf-8"))
    old_names = {
        f"{section}.{leaf}" for section in ("data", "options", "train") for leaf in settings[section]
    }
    old_names &= renames.RENAMED.keys()
    assert old_names
    for old in old_names:
        assert f"{old}: renamed to {renames.RENAMED[old]}" in result.stderr
    upgraded = renames.upgrade_settings(read_config(str(scratch / name)))
    assert upgraded["data"]["dev_fraction"] == 0.2


def test_files_of_vectors_are_written_as_before(vectors):
    run("embed", "../embed", "corpus.csv", "-o", "again.npy", *ON_CPU)
    np.testing.assert_allclose(np.load("again.npy"), np.load("vectors.npy"), atol=NEAR)
    options = ["--dtype", "float16", "--normalize", "--truncate-dim", "4"]
    run("embed", "../embed", "corpus.csv", "-o", "again.parquet", *options, *ON_CPU)
    again, before = pq.read_table("again.parquet"), pq.read_table("vectors.parquet")
    assert again.schema == before.schema
    assert again.drop(["embedding"]) == before.drop(["embedding"])
    found, expected = (np.array(table["embedding"].to_pylist()) for table in (again, before))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [("npy", []), ("parquet", ["--dtype", "float16", "--normalize", "--truncate-dim", "4"])],
)
def test_unfinished_files_of_vectors_are_refused(vectors, name, options):
    """They do not say which prompt and width their vectors have."""
    words = ["embed", "../embed", "corpus.csv", "-o", f"unfinished.{name}", *options, *ON_CPU]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert f"unfinished.{name}.part is the beginning of something else" in result.stderr
    assert "an earlier version of bertune began it" in result.stderr
    assert "to start again, remove unfinished." in result.stderr


def search(vectors, *words):
    result = run("search", "../embed", "corpus.csv", *words, "--json", *ON_CPU)
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def test_an_index_is_built_again(vectors):
    """It does not say which prompt and similarity its vectors have."""
    lines, notes = search(vectors, *EXPECTED["search"]["queries"], "-k", EXPECTED["search"]["k"])
    assert "corpus.csv.index is of an earlier version of bertune" in notes
    assert "it is built again" in notes and "index: 12 rows" in notes
    assert_near(without_lines(lines), EXPECTED["search"]["lines"])
    _, notes = search(vectors, "dog")
    assert "index: " not in notes


def without_lines(lines):
    """JSON of format 1 had no lines."""
    for line in lines:
        line.pop("lines", None)
        for hit in line.get("hits", []):
            assert hit.pop("line") == hit["row"] + 1
    return lines


def test_near_duplicates_of_an_index(vectors):
    threshold = EXPECTED["pairs"]["threshold"]
    lines, _ = search(vectors, "--pairs", "--threshold", threshold)
    assert_near(without_lines(lines), EXPECTED["pairs"]["lines"])


def test_an_unfinished_index_is_begun_again(vectors):
    """Killed when all its rows were done."""
    folder = Path("corpus.csv.index")
    content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    assert "dev_share" in content["source"]["data"]
    progress = {
        "identity": {"model": content["model"], "source": content["source"], "for": "search"},
        "count": content["rows"],
        "width": content["width"],
        "form": content["form"],
        "chunk": 16384,
        "rows": content["rows"],
        "sealed": False,
    }
    (folder / "vectors.npy").rename(folder / "vectors.npy.part")
    (folder / "vectors.npy.part.json").write_text(json.dumps(progress), encoding="utf-8")
    for name in ("index.json", "texts.jsonl", "offsets.npy"):
        (folder / name).unlink()
    lines, notes = search(vectors, *EXPECTED["search"]["queries"], "-k", EXPECTED["search"]["k"])
    assert "is of an earlier version of bertune" in notes
    assert_near(without_lines(lines), EXPECTED["search"]["lines"])
    assert not list(folder.glob("*.part*"))
