"""Folders that another tool has changed after bertune: the newer files count, and what changed is named."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from tests.sentence_folders import PAIRS, SCORED, TEXTS, open_sentence_folder, silenced, write_rows

import bertune
from bertune.artifact.file_hashes import changed_files
from bertune.artifact.read import read_artifact, read_metadata
from bertune.console import Console
from bertune.errors import ArtifactError

NAMED = [{**row, "label": ["no", "yes"][n % 2]} for n, row in enumerate(PAIRS)]


def trained(encoder, tmp_path, task="embed", rows=PAIRS, *settings):
    file = write_rows(tmp_path / "rows.jsonl", rows)
    files = [f"data.train={file}", f"data.dev={file}", f"model={encoder}", f"out={tmp_path / 'out'}"]
    return bertune.train(task, [*files, "train.max_steps=1", *settings], quiet=True).folder


def opened(folder):
    """A model, and what was said when it was opened."""
    said = []
    return read_artifact(folder, note=said.append).pipeline(precision="fp32"), said


def edit(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}, indent=4))


@pytest.mark.parametrize("task", ["embed", "match"])
def test_nothing_is_said_of_a_folder_as_it_was_written(task, tiny, tmp_path):
    folder = trained(tiny, tmp_path, task, SCORED if task == "match" else PAIRS, "options.embedding_dim=8")
    for place in (folder, folder / "last"):
        assert opened(place)[1] == []
    for name in ("modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"):
        file = folder / name  # other blanks and line ends, as version control may leave them
        file.write_bytes(json.dumps(json.loads(file.read_text()), indent=7).replace("\n", "\r\n").encode())
    assert opened(folder)[1] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bertune.load(folder)


def test_newer_prompts_and_lengths_count(tiny, tmp_path):
    folder = trained(tiny, tmp_path)
    before = opened(folder)[0].encode(TEXTS)
    usage = folder / "config_sentence_transformers.json"
    edit(usage, prompts={"query": "the Dog "}, default_prompt_name="query", similarity_fn_name="dot")
    model, said = opened(folder)
    assert len(said) == 1 and "config_sentence_transformers.json" in said[0]
    assert (model.prompts, model.default_prompt_name) == ({"query": "the Dog "}, "query")
    assert model.similarity_fn_name == "dot"
    assert not np.allclose(model.encode(TEXTS), before, atol=1e-3)
    assert np.allclose(model.encode(TEXTS, prompt=""), before, atol=1e-6)
    edit(folder / "sentence_bert_config.json", max_seq_length=7, do_lower_case=True)
    model, said = opened(folder)
    assert (model.max_seq_length, model.task.options.do_lower_case) == (7, True)
    assert "config_sentence_transformers.json', 'sentence_bert_config.json'" in said[0]
    with pytest.warns(UserWarning, match="sentence_bert_config"):
        bertune.load(folder)


@pytest.mark.parametrize("settings", [(), ("options.embedding_dim=8", "options.normalize=true")])
def test_a_folder_that_they_saved_again_is_theirs(settings, tiny, tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = trained(tiny, tmp_path, "embed", PAIRS, *settings)
    theirs = open_sentence_folder(folder)
    for parameter in theirs.parameters():
        parameter.data *= 1.1
    theirs.prompts = {"query": "the Dog ", "document": ""}
    theirs.default_prompt_name = "query"
    with silenced():
        theirs.save(str(folder))
    model, said = opened(folder)
    assert len(said) == 1 and "changed since bertune wrote this folder" in said[0]
    assert "without bertune.json" in said[0]
    np.testing.assert_allclose(model.encode(TEXTS), theirs.encode(TEXTS), atol=1e-4)


def test_another_pooling_counts(tiny, tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = trained(tiny, tmp_path)
    edit(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True)
    model, said = opened(folder)
    assert "1_Pooling/config.json" in said[0]
    np.testing.assert_allclose(model.encode(TEXTS), open_sentence_folder(folder).encode(TEXTS), atol=1e-4)


def test_labels_that_are_gone_are_refused(tiny, tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = trained(tiny, tmp_path, "match", NAMED, "options.loss=softmax")
    with silenced():
        open_sentence_folder(folder).save(str(folder))
    with pytest.raises(ArtifactError, match=r"layer that predicts labels; remove bertune\.json"):
        bertune.load(folder)
    (folder / "bertune.json").unlink()
    assert bertune.load(folder).encode(TEXTS).shape == (len(TEXTS), 32)


def test_weights_of_another_tool_are_named(tiny, tmp_path):
    from transformers import AutoModelForSequenceClassification

    folder = trained(tiny, tmp_path, "classify", NAMED)
    with silenced():
        model = AutoModelForSequenceClassification.from_pretrained(str(folder))
        model.save_pretrained(str(folder))
    said = opened(folder)[1]
    assert len(said) == 1 and "'model.safetensors' changed" in said[0] and "bertune.json" in said[0]
    shown = []

    class Shown(Console):
        def info(self, line):
            shown.append(line)

    bertune.evaluate(folder, str(tmp_path / "rows.jsonl"), console=Shown(quiet=True))
    assert f"note: {said[0]}" in shown


def test_older_folders_without_hashes_open(tiny, tmp_path):
    folder = trained(tiny, tmp_path)
    metadata = read_metadata(folder)
    assert changed_files(folder, metadata) == []
    del metadata["files"]
    (folder / "bertune.json").write_text(json.dumps(metadata))
    edit(folder / "sentence_bert_config.json", max_seq_length=7)
    assert opened(folder)[1] == []
    edit(folder / "config_sentence_transformers.json", prompts={"query": "the Dog "})
    model, said = opened(folder)  # which bertune did not write at that time
    assert model.prompts == {"query": "the Dog "}
    assert "config_sentence_transformers.json" in said[0]
