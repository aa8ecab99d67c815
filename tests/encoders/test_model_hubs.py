"""Models of the Hub and of ModelScope: what is downloaded, from where, and what is said where that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bertune
from bertune.cli.app import app
from bertune.encoders.pretrained import locate_model
from bertune.errors import ArtifactError, ConfigError, MissingExtra

SMALL = ["*.json", "*.txt", "*.model", "*.spm", "*run.yaml", "*_Dense/pytorch_model.bin"]


class Scope:
    """Stands for the package modelscope: keeps what it is asked, and gives a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.error, self.kept = folder, [], None, False

    def snapshot_download(
        self, model_id=None, revision=None, cache_dir=None, *, allow_patterns=None, local_files_only=False
    ):
        self.calls.append((model_id, allow_patterns, local_files_only))
        if self.error and not (local_files_only and self.kept):
            raise self.error
        return str(self.folder)


@pytest.fixture
def scope(tiny, tmp_path, monkeypatch):
    fake = Scope(Path(shutil.copytree(tiny, tmp_path / "scope")))
    module = types.ModuleType("modelscope")
    module.snapshot_download = fake.snapshot_download
    monkeypatch.setitem(sys.modules, "modelscope", module)
    monkeypatch.chdir(tmp_path)
    return fake


def test_a_model_of_modelscope_is_downloaded_without_what_nobody_reads(scope):
    assert locate_model("modelscope:org/name") == scope.folder
    assert scope.calls == [("org/name", [*SMALL, "*.safetensors"], False)]


def test_python_files_come_along_only_where_they_are_trusted(scope):
    locate_model("modelscope:org/name", with_code=True)
    assert scope.calls == [("org/name", [*SMALL, "*.py", "*.safetensors"], False)]


def test_older_weights_are_downloaded_where_there_are_no_others(scope):
    (scope.folder / "model.safetensors").rename(scope.folder / "pytorch_model.bin")
    locate_model("modelscope:org/name")
    assert [files[-1] for _, files, _ in scope.calls] == ["*.safetensors", "pytorch_model*.bin"]


def test_it_trains_and_shows_tokens(scope):
    Path("rows.csv").write_text("text,label\n" + "good cat,a\nbad dog,b\n" * 8)
    words = [
        "train",
        "classify",
        "data.train=rows.csv",
        "model=modelscope:org/name",
        "train.max_steps=1",
        "out=m",
    ]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert "model: modelscope:org/name" in Path("m/run.yaml").read_text()
    shown = CliRunner().invoke(app, ["inspect", "rows.csv", "--model", "modelscope:org/name"])
    assert shown.exit_code == 0, shown.output
    assert "no tokens shown" not in shown.output


def test_a_saved_folder_opens_from_there(scope, tmp_path):
    Path("rows.csv").write_text("text,label\n" + "good cat,a\nbad dog,b\n" * 8)
    bertune.train(
        "classify", ["data.train=rows.csv", f"model={scope.folder}", "train.max_steps=1", "out=m"], quiet=True
    )
    scope.folder = tmp_path / "m"
    assert bertune.load("modelscope:org/name").predict(["good cat"])[0].value in {"a", "b"}


def test_where_it_cannot_be_reached_an_earlier_download_is_used(scope):
    scope.error, scope.kept = RuntimeError("no route to host"), True
    assert locate_model("modelscope:org/name") == scope.folder
    assert [offline for _, _, offline in scope.calls] == [False, True]


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("modelscope:name", None, "must be modelscope:ORG/NAME"),
        ("modelscope:", None, "must be modelscope:ORG/NAME"),
        ("modelscope:a/b/c", None, "must be modelscope:ORG/NAME"),
        ("modelscope:../x", None, "must be modelscope:ORG/NAME"),
        ("modelscope:org/name", ValueError("The request model: org/name does not exist!\nmore"), "does not exist!"),
        ("modelscope:org/name", KeyError(), "cannot be had from ModelScope: KeyError"),
    ],
)  # fmt: skip
def test_refusals(name, error, expected, scope):
    scope.error = error or RuntimeError("no such model")
    with pytest.raises(ConfigError) as refused:
        locate_model(name)
    assert str(refused.value).startswith(f"model: {name!r}")
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ArtifactError, match=r"modelscope:"):
        bertune.load(name)


def test_a_folder_without_config_is_refused(scope):
    (scope.folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        locate_model("modelscope:org/name")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingExtra, match=r"pip install 'bertune\[modelscope\]'"):
        locate_model("modelscope:org/name")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/multilingual-e5-small", "; e5-small is this encoder, from a package"),
        ("e5-smal", "; did you mean 'e5-small'?"),
        ("intfloat/other", ""),
    ],
)
def test_packaged_encoders_are_named_where_the_hub_does_not_answer(name, expected):
    with pytest.raises(ConfigError) as refused:
        locate_model(name)
    begin, _, end = str(refused.value).partition("; ")
    assert "cannot be had from the Hub" in begin
    assert f"; {end}" == expected or (not expected and not end)


def test_a_mirror_of_the_hub_is_asked(tmp_path):
    asked = []

    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815  (the name that http.server calls)

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = "import bertune; bertune.load('some-org/some-name')"
        environment = {
            **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        server.shutdown()
    assert "nor can it be had from the Hub: " in done.stderr
    assert any("some-org/some-name" in path for path in asked)
