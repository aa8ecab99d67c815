"""Renamed settings: a user is told the new name; files that bertune wrote itself are translated."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bertune.cli.app import app
from bertune.config.load import dump_config, read_config
from bertune.config.renames import RENAMED, new_name_of, upgrade_settings
from bertune.config.schema import RunConfig
from bertune.config.yaml import dump_yaml
from bertune.tasks import load_task, task_names


def call(*words: str) -> tuple[int, str, list[str]]:
    found = CliRunner().invoke(app, ["train", *words])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout, found.stderr.strip().splitlines()


def task_with(setting: str) -> str:
    """Return a task that has a setting under today's name."""
    section, _, name = setting.partition(".")
    if section != "options":
        assert name in RunConfig.model_fields[section].annotation.model_fields
        return "classify"
    return next(task for task in task_names() if name in load_task(task).Options.model_fields)


@pytest.mark.parametrize("old", RENAMED)
def test_the_command_line_answers_an_old_name_with_the_new_one(old, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new = RENAMED[old]
    assert old.partition(".")[0] == new.partition(".")[0]
    assert new_name_of(old) == new
    assert new_name_of(new) is None
    data = write("rows.csv", "text,label\na dog,a\na cat,b\n")
    code, out, said = call(task_with(new), f"data.train={data}", f"{old}=1", "out=out")
    assert (code, out) == (2, "")
    assert said == [f"bertune: {old}: renamed to {new}"]
    assert not Path("out").exists()


def test_old_names_in_a_run_file_are_answered_together(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(
        "run.yaml",
        "task: classify\ntrain:\n  accumulate: 2\n  shard: true\n  epochz: 1\n"
        "data:\n  train: a.csv\n  dev_share: 0.2\n",
    )
    code, out, said = call(file)
    assert (code, out) == (2, "")
    assert said[0] == "bertune: 4 settings are wrong:"
    for old in ("train.accumulate", "train.shard", "data.dev_share"):
        assert f"{old}: renamed to {RENAMED[old]}" in said
    assert any(line.startswith("train.epochz: no such setting; did you mean 'epochs'") for line in said)


def nested(names: dict[str, object]) -> dict[str, object]:
    settings: dict[str, object] = {"task": "classify", "seed": 7}
    for name, value in names.items():
        section, _, leaf = name.partition(".")
        settings.setdefault(section, {})[leaf] = value
    return settings


def test_all_old_names_are_translated():
    old = nested({**{name: n for n, name in enumerate(RENAMED)}, "train.epochs": 3})
    before = copy.deepcopy(old)
    expected = nested({**{RENAMED[name]: n for n, name in enumerate(RENAMED)}, "train.epochs": 3})
    assert upgrade_settings(old) == expected
    assert old == before
    assert upgrade_settings(expected) == expected


def test_the_new_name_wins_where_both_are_given():
    settings = {"train": {"accumulate": 2, "micro_batches": 4}}
    assert upgrade_settings(settings) == {"train": {"micro_batches": 4}}


@pytest.mark.parametrize("settings", [{}, {"train": None}, {"train": "fast"}, {"options": []}])
def test_what_is_no_section_is_left_as_it_is(settings):
    assert upgrade_settings(settings) == settings


def test_a_run_file_that_bertune_has_written_before_says_the_same(tmp_path):
    """Written today and put into the old words: read again, it is the same run."""
    given = {
        "data": {"train": "a.csv", "dev_fraction": 0.2},
        "train": {"micro_batches": 2, "min_delta": 0.1, "max_nonfinite_steps": 3},
    }
    run = RunConfig.model_validate({"task": "classify", **given})
    written = yaml.safe_load(dump_config(run))
    for old, new in RENAMED.items():
        section, _, leaf = new.partition(".")
        if leaf in written[section]:
            written[section][old.partition(".")[2]] = written[section].pop(leaf)
    assert "micro_batches" not in written["train"]
    (tmp_path / "run.yaml").write_text(dump_yaml(written), encoding="utf-8")
    assert RunConfig.model_validate(upgrade_settings(read_config(tmp_path / "run.yaml"))) == run
