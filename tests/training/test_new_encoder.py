"""`model: new`: runs that begin from nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ENGLISH

import bertune
from bertune.commands.train import check_run, resolve_run
from bertune.config.auto_rates import Learner, encoder_rate
from bertune.config.load import read_config
from bertune.errors import BertuneError, ConfigError, DataError
from bertune.training import setup

WORDS = ENGLISH.split()
SIZES = {"layers": 1, "hidden_size": 32, "heads": 2, "vocab_size": 80, "max_positions": 32}
FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = [" ".join(WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(9)) for i in range(60)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def settings(texts: Path, out: Path, **more) -> dict:
    train = {"max_steps": 4, "batch_size": 8, "checkpoint_every": 2, "precision": "fp32"}
    return {
        "task": "pretrain", "model": "new", "out": str(out), "options": {"new": SIZES},
        "data": {"train": str(texts), "format": "lines", "max_length": 16}, "train": train, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(texts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "out"
    bertune.train(settings(texts, out), quiet=True)
    return out


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def test_the_result_is_a_model_and_its_run_file_repeats_it(finished, tmp_path):
    assert read_config(finished / "run.yaml")["model"] == "new"
    again = bertune.train(finished / "run.yaml", [f"out={tmp_path / 'again'}"], quiet=True).folder
    assert same(finished, again)
    assert same(finished / "encoder", again / "encoder")
    other = bertune.train(finished / "run.yaml", [f"out={tmp_path / 'other'}", "seed=1"], quiet=True).folder
    assert not same(finished, other)
    assert "Trained with bertune from nothing" in (finished / "README.md").read_text(encoding="utf-8")


def test_transformers_opens_the_result(finished):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model, info = AutoModelForMaskedLM.from_pretrained(finished, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(finished)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.mask_token_id == 4


def test_the_result_is_what_other_tasks_begin_from(finished, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"text": word, "label": str(len(word) > 4)}) + "\n" for word in WORDS), "utf-8"
    )
    given = [f"model={finished}", f"data.train={rows}", "train.max_steps=1", f"out={tmp_path / 'out'}"]
    result = bertune.train("classify", given, quiet=True)
    assert result.scores["dev"].main_metric == "accuracy"


DEADLY = """
import os, signal, sys
import bertune
import bertune.encoders.new, bertune.training.setup
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "half made":
    bertune.encoders.new.write_json = die
else:
    bertune.training.setup.build_model = die
import json
bertune.train(json.loads(sys.argv[2]), quiet=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no kill -9")
@pytest.mark.parametrize("moment", ["half made", "made"])
def test_a_run_that_was_killed_while_it_made_its_encoder_goes_on(moment, texts, finished, tmp_path):
    out = tmp_path / "out"
    given = json.dumps(settings(texts, out))
    killed = subprocess.run([sys.executable, "-c", DEADLY, moment, given], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (out / "encoder").is_dir() == (moment == "made")
    before = {path.stat().st_ino for path in (out / "encoder").glob("*")}
    with pytest.raises(ConfigError, match="--resume"):
        bertune.train(settings(texts, out), quiet=True)
    bertune.train(settings(texts, out), quiet=True, resume=True)
    assert same(finished, out)
    assert not list(out.glob("*.part"))
    if moment == "made":
        assert before == {path.stat().st_ino for path in (out / "encoder").glob("*")}  # it was used as it is


def test_an_encoder_of_other_settings_is_made_again_and_a_foreign_one_is_refused(texts, finished, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copytree(finished / "encoder", out / "encoder")
    larger = settings(texts, out, options={"new": {**SIZES, "layers": 2}})
    bertune.train(larger, quiet=True, resume=True)
    assert json.loads((out / "encoder" / "config.json").read_text())["num_hidden_layers"] == 2
    foreign = tmp_path / "foreign"
    (foreign / "encoder").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds no run"):
        bertune.train(settings(texts, foreign), quiet=True, resume=True)


def test_a_checkpoint_goes_on_with_the_encoder_that_there_is(texts, finished, tmp_path):
    out = tmp_path / "out"
    given = settings(texts, out)

    class Stop(bertune.Listener):
        def on_step(self, step, total_steps):
            if step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(bertune.Interrupted):
        bertune.train(given, quiet=True, listeners=[Stop()])
    bertune.train(given, quiet=True, resume=True)
    assert same(finished, out)


def test_what_cannot_begin_leaves_nothing(texts, tmp_path, monkeypatch):
    out = tmp_path / "out"
    signs = tmp_path / "signs.txt"
    signs.write_text("...\n!!!\n,,,\n;;;\n", encoding="utf-8")
    with pytest.raises(DataError, match="neither a letter nor a digit"):
        bertune.train(settings(signs, out), quiet=True)
    assert not out.exists()

    def refuse(*_):
        raise ConfigError("later")

    monkeypatch.setattr(setup, "build_model", refuse)
    with pytest.raises(ConfigError, match="later"):
        bertune.train(settings(texts, out), quiet=True)
    assert not out.exists()


BASE = ["data.train=rows.txt"]
BAD = [
    ("pretrain", ["options.new={}"], "and model is not given; write model: new"),
    ("pretrain", ["options.new={}", "model=minilm"], "model is 'minilm'; write model: new"),
    ("pretrain", ["model=new", "options.new={heads: 3}"], "3 do not divide hidden_size 256.*: 1, 2, 4"),
    ("pretrain", ["model=new", "options.new={layers: 0, hidden_size: 0, heads: 0}"], "3 settings are wrong"),
    (
        "pretrain",
        ["model=new", "options.new.layer=3"],
        "options.new.layer: no such setting; did you mean 'layers'",
    ),
    ("pretrain", ["model=new", "options.new=5"], "options.new: "),
    ("pretrain", ["model=new", "options.new.tokenizer=bpe"], "'wordpiece' or 'unigram'"),
    ("pretrain", ["model=new", "data.max_length=513"], "513 is more than options.new.max_positions, 512"),
    ("pretrain", ["model=new", "data.max_length=600", "train.reinit_layers=1"], "2 settings are wrong"),
    ("pretrain", ["model=new", "train.head=keep"], "train.head: "),
    ("pretrain", ["model=new", "model_code=trusted"], "model_code: "),
    ("classify", ["model=new"], "task classify needs a pretrained encoder; make one by"),
    ("classify", ["options.new={}"], "options.new: no such setting"),
]


@pytest.mark.parametrize(("task", "given", "message"), BAD)
def test_bad_settings_are_refused_before_any_row_is_read(task, given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        bertune.train(task, [*BASE, *given, "out=out"], quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["tune", "crossval"])
def test_other_verbs_say_what_to_do(verb, texts, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(BertuneError, match=r"begins from nothing|crossval"):
        getattr(bertune, verb)(settings(texts, out))
    assert not out.exists()


def test_a_folder_named_new_is_taken_where_nothing_can_begin_from_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("new").symlink_to(tiny)
    run, task = resolve_run("classify", ["model=new", *BASE], lambda _: None)
    check_run(run, task)


def test_a_new_encoder_learns_at_a_higher_rate():
    def rate(width: int, *, is_new: bool) -> float:
        return encoder_rate(Learner(width, 4, 1000, encoder_is_new=is_new))

    assert [rate(width, is_new=True) for width in (64, 256, 512, 768)] == [1e-3, 1e-3, 5e-4, 3e-4]
    assert all(rate(width, is_new=True) > rate(width, is_new=False) for width in (64, 256, 512, 768))
