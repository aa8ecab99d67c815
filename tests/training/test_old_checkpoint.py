"""Runs, run files and caches of format 1, written by bertune c8c62a7: tests/fixtures/format-1/README.md."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

import bertune
from bertune.cli.app import app
from bertune.config.renames import RENAMED, upgrade_settings
from bertune.console import Console
from bertune.data import dataset_cache
from bertune.training.resume import rounding_environment

FIXTURES = Path(__file__).parents[1] / "fixtures" / "format-1"
RUN_FILES = sorted(path.name for path in FIXTURES.glob("run*.yaml"))
CHECKPOINT = FIXTURES / "interrupted" / "checkpoints" / "step-00000033" / "checkpoint.json"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A copy of the fixtures, as working folder."""
    copy = shutil.copytree(FIXTURES, tmp_path / "format-1")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("BERTUNE_CACHE", "cache")
    return copy


def command(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def same_machine() -> bool:
    """Whether this machine rounds as the one that wrote the fixtures."""
    return json.loads(CHECKPOINT.read_text())["about"]["machine"] == rounding_environment()


def assert_equal_weights(path: Path, expected: Path) -> None:
    """Bit for bit on a machine like that of the fixtures, else up to rounding."""
    tensors, others = load_file(path), load_file(expected)
    tolerance = 0.0 if same_machine() else 1e-4
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], atol=tolerance, rtol=tolerance, msg=name)


def assert_close(value: object, expected: object) -> None:
    """Equal, with numbers up to rounding."""
    if isinstance(expected, dict):
        assert isinstance(value, dict)
        assert value.keys() == expected.keys()
        for name in expected:
            assert_close(value[name], expected[name])
    elif isinstance(expected, list):
        assert isinstance(value, list)
        assert len(value) == len(expected)
        for one, other in zip(value, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert value == pytest.approx(expected, abs=1e-4)
    else:
        assert value == expected


def without_times(values: dict) -> dict:
    return {name: value for name, value in values.items() if not name.endswith(("seconds", "_s"))}


def test_a_run_that_was_stopped_is_finished(folder):
    expected = json.loads((folder / "expected.json").read_text())["interrupted"]
    before = (folder / "interrupted" / "history.jsonl").read_text().splitlines()
    result = command("train", "interrupted", "--resume")
    assert result.exit_code == 0, result.output
    assert_equal_weights(
        folder / "interrupted" / "model.safetensors", folder / "interrupted.model.safetensors"
    )
    assert_equal_weights(
        folder / "interrupted" / "last" / "model.safetensors", folder / "interrupted.last.safetensors"
    )
    history = [
        json.loads(line) for line in (folder / "interrupted" / "history.jsonl").read_text().splitlines()
    ]
    assert len(before) < len(history) == len(expected["history"])
    events = [{"event": line.pop("what"), **line} for line in expected["history"]]
    assert_close([without_times(line) for line in history], events)
    scores = json.loads((folder / "interrupted" / "scores.json").read_text())
    assert scores["dev"].pop("baseline")["name"]  # format 1 had none
    assert_close(scores["dev"], expected["scores"]["dev"])
    assert scores["run"]["steps"] == expected["scores"]["run"]["steps"]
    assert scores["run"]["best_step"] == expected["scores"]["run"]["best_step"]
    assert not (folder / "interrupted" / "checkpoints").exists()


def test_the_folder_of_a_finished_run_has_the_names_of_today(folder):
    assert command("train", "interrupted", "--resume").exit_code == 0
    run = yaml.safe_load((folder / "interrupted" / "run.yaml").read_text())
    assert run["train"]["micro_batches"] == 2
    assert run == upgrade_settings(run)
    again = command("train", "interrupted", "--resume")
    assert again.exit_code == 0, again.output


def test_a_changed_setting_is_refused_under_its_name_of_today(folder):
    result = command("train", "interrupted", "--resume", "train.micro_batches=4")
    assert result.exit_code == 0, result.output  # it only rounds in another way
    shutil.rmtree(folder / "interrupted")
    shutil.copytree(FIXTURES / "interrupted", folder / "interrupted")
    with pytest.raises(bertune.ConfigError, match=r"data\.dev_fraction was 0\.2, is 0\.3"):
        bertune.train("interrupted", ["data.dev_fraction=0.3"], resume=True, quiet=True)


def old_settings(name: str) -> dict[str, str]:
    """The settings of a run file that have other names today."""
    content = yaml.safe_load((FIXTURES / name).read_text(encoding="utf-8"))
    named = {
        f"{section}.{leaf}"
        for section, values in content.items()
        if isinstance(values, dict)
        for leaf in values
    }
    return {old: new for old, new in RENAMED.items() if old in named}


def test_the_run_files_have_every_old_name():
    assert set().union(*map(old_settings, RUN_FILES)) == set(RENAMED)


@pytest.mark.parametrize("name", RUN_FILES)
def test_every_old_setting_is_answered_with_its_new_name(name, folder):
    with pytest.raises(bertune.ConfigError) as error:
        bertune.train(name, ["out=model"])
    old = old_settings(name)
    assert re.findall(r"(\S+): renamed to (\S+)", str(error.value)) == [
        (setting, old[setting])
        for setting in re.findall(r"^([\w.]+): ", str(error.value), re.M)
        if setting in old
    ]
    assert str(error.value).count("renamed to") == len(old) >= 7
    assert command("train", name, "out=model").exit_code == 2
    assert not (folder / "model").exists()


def test_a_run_file_with_the_new_names_gives_the_same_weights(folder):
    content = yaml.safe_load((folder / "run.yaml").read_text())
    (folder / "new.yaml").write_text(yaml.safe_dump(upgrade_settings(content)))
    result = command("train", "new.yaml", "out=model")
    assert result.exit_code == 0, result.output
    assert_equal_weights(folder / "model" / "model.safetensors", folder / "classify" / "model.safetensors")


def test_an_old_cache_is_listed_and_removed(folder):
    expected = json.loads((folder / "expected.json").read_text())["cache"]["entries"]
    listed = json.loads(command("cache", "list", "--json").output)["entries"]
    ages = [entry.pop("age_s") for entry in listed]
    assert all(age >= 0 for age in ages)
    outdated = [{**entry, "kind": "outdated"} for entry in expected]
    assert {entry["name"]: entry for entry in listed} == {entry["name"]: entry for entry in outdated}
    assert "2 entries" in command("cache", "list").output
    assert command("cache", "clear").exit_code == 0
    assert list((folder / "cache").iterdir()) == []


def test_a_run_of_today_does_not_use_an_old_cache(folder, monkeypatch):
    """It says that it reads the rows and tokenises them, and adds entries of its own."""
    lines: list[str] = []
    monkeypatch.setattr(Console, "info", lambda self, line: lines.append(line))
    old = {entry.path.name for entry in dataset_cache.list_entries()}
    settings = [
        "model=tiny", "device=cpu", "seed=7", "data.train=data/spans.jsonl", "data.dev_fraction=0.2",
        "data.max_length=16", "data.workers=1", "options.decoder=crf", "options.window_overlap=4",
        "train.precision=fp32", "train.max_steps=4", "train.batch_size=8", "train.learning_rate=1e-2",
    ]  # fmt: skip
    bertune.train("tag", [*settings, "out=off", "data.cache=off"])
    assert old == {entry.path.name for entry in dataset_cache.list_entries()}
    lines.clear()
    bertune.train("tag", [*settings, "out=on", "data.cache=on"])
    text = "\n".join(lines)
    assert "from the cache" not in text
    assert "54 rows read and checked" in text
    assert "train: 43 rows tokenised" in text
    new = {entry.path.name for entry in dataset_cache.list_entries()} - old
    assert sorted(name.split("-")[0] for name in new) == ["rows", "tokens"]
    assert (folder / "on/model.safetensors").read_bytes() == (folder / "off/model.safetensors").read_bytes()
