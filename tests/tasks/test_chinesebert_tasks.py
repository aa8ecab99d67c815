"""Every task learns with a ChineseBERT, saves it and reads it back; nothing in a task knows of it."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tests.chinesebert_folder import shapes, weights, write_folder

import bertune
from bertune.commands.inspect import inspect, report_lines
from bertune.commands.train import prepare
from bertune.data.dataset import EncodedDataset
from bertune.encoders.families.glyphs import GlyphOptions
from bertune.encoders.load import load_encoder
from bertune.encoders.pretrained import PretrainedFolder
from bertune.heads.model import Model
from bertune.tasks import task_names
from bertune.tasks.base.reading import read_and_fit
from bertune.training.rng import seed_everything
from bertune.training.step import TrainStep

GOOD, BAD, NOUNS = "好大长绿", "坏小地人", "狗猫树房车书"
ROWS = [(f"我的{n}很{a}", n, a) for a in GOOD + BAD for n in NOUNS]
CASES: dict[str, tuple[str, list[dict[str, object]], list[str], float]] = {
    "classify": ("classify", [{"text": t, "label": "good" if a in GOOD else "bad"} for t, _, a in ROWS], [], 0.95),
    "classify-pair": (
        "classify",
        [{"text": n, "text_b": f"很{a}", "label": "good" if a in GOOD else "bad"} for _, n, a in ROWS],
        ["options.pooling=mean", "train.glyphs=trained"],
        0.95,
    ),
    "regress": ("regress", [{"text": t, "label": 4.5 if a in GOOD else 1.25} for t, _, a in ROWS], [], 0.9),
    "tag": ("tag", [{"text": t, "label": [[2, 3, "animal" if n in "狗猫" else "thing"]]} for t, n, _ in ROWS], ["options.decoder=crf"], 0.95),
    "match": ("match", [{"text": n, "text_b": f"很{a}", "label": int(a in GOOD)} for _, n, a in ROWS], [], 0.95),
    "pretrain": ("pretrain", [{"text": t} for t, _, _ in ROWS], ["options.packing=none", "options.metric=accuracy"], 0.15),
    "embed": (
        "embed", [{"text": t, "text_b": f"{a}{n}"} for t, n, a in ROWS], ["options.embedding_dim=16", "train.micro_batches=2"], 0.9,
    ),
}  # fmt: skip


def test_every_task_has_a_case():
    assert {case[0] for case in CASES.values()} >= set(task_names())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("encoder") / "m")


@pytest.fixture(params=CASES, scope="module")
def trained(request, folder, tmp_path_factory):
    task, rows, settings, enough = CASES[request.param]
    place = tmp_path_factory.mktemp(request.param)
    file = place / "rows.jsonl"
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    fixed = [f"data.train={file}", f"data.dev={file}", f"model={folder}", f"out={place / 'out'}", "train.epochs=14", "train.batch_size=8",
             "train.learning_rate=3e-3", "train.eval_every=42", "train.precision=fp32"]  # fmt: skip
    return rows, file, enough, bertune.train(task, [*fixed, *settings], quiet=True)


def test_it_learns(trained):
    _, _, enough, result = trained
    assert result.scores["dev"].main_value >= enough


def test_it_predicts_as_it_was_scored_whatever_the_batch(trained):
    rows, file, _, result = trained
    scores = bertune.evaluate(result.folder, str(file), precision="fp32").scores
    assert scores.main_value == pytest.approx(result.scores["dev"].main_value, abs=1e-6)
    model = bertune.load(result.folder, precision="fp32")
    texts = [(r["text"], r["text_b"]) if "text_b" in r else r["text"] for r in rows]
    together = model.predict(texts)
    for place in (0, 13, 47):
        (alone,) = model.predict([texts[place]])
        if isinstance(alone.value, float):
            assert alone.value == pytest.approx(together[place].value, abs=1e-5)
        elif isinstance(alone.value, str):
            assert alone.value == together[place].value
        else:
            assert [e[:4] for e in alone.value] == [e[:4] for e in together[place].value]


def test_the_saved_folder_has_the_names_of_the_release_and_no_other_tool_misreads_it(trained):
    _, _, _, result = trained
    state = load_file(result.folder / "model.safetensors")
    encoder = {n: s for n, s in shapes().items() if not n.startswith(("cls.", "bert.pooler."))}
    assert {n: tuple(t.shape) for n, t in state.items() if n in encoder} == encoder
    others = state.keys() - encoder.keys()
    assert all(
        n.startswith(("bert.pooler.dense.", "classifier.", "cls.predictions.", "bertune_head."))
        for n in others
    ), others
    config = json.loads((result.folder / "config.json").read_text())
    assert config["model_type"] == "chinesebert" and config["glyph_embedding_dim"] == 1728
    assert config["architectures"][0].startswith("ChineseBert")
    card = (result.folder / "README.md").read_text()
    assert (
        "library_name: bertune" in card
        and "transformers has no ChineseBERT" in card
        and "bertune.load(" in card
    )
    assert "It opens in" not in card
    assert not (result.folder / "modules.json").exists()
    with warnings.catch_warnings(), pytest.raises(ValueError, match="chinesebert"):
        warnings.simplefilter("ignore")
        from transformers import AutoModel

        AutoModel.from_pretrained(str(result.folder))


def test_training_goes_on_from_a_saved_folder(trained, tmp_path):
    _, file, _, result = trained
    meta = json.loads((result.folder / "bertune.json").read_text())
    encoder, report = load_encoder(result.folder)
    assert report.missing_keys == []
    saved = load_file(result.folder / "model.safetensors")
    assert all(torch.equal(t, saved[f"bert.{n}"]) for n, t in encoder.hf_state_dict().items())
    again = bertune.train(
        meta["task"],
        [f"data.train={file}", f"model={result.folder}", f"out={tmp_path / 'out'}", "train.max_steps=2"],
        quiet=True,
    )
    assert (again.folder / "model.safetensors").exists()


def test_glyphs_stay_or_learn_as_they_should(trained):
    rows, _, _, result = trained
    saved = load_file(result.folder / "model.safetensors")[
        "bert.embeddings.glyph_embeddings.embedding.weight"
    ]
    before = weights()["bert.embeddings.glyph_embeddings.embedding.weight"]
    learns = "glyphs: trained" in (result.folder / "run.yaml").read_text()
    assert learns == (
        "text_b" in rows[0] and isinstance(rows[0]["label"], str) if "label" in rows[0] else False
    )
    assert torch.equal(saved, before) != learns


def test_what_the_log_says(folder, tmp_path, capsys, write):
    file = write("rows.jsonl", [{"text": t, "label": a} for t, _, a in ROWS])
    state = {n: t for n, t in weights().items() if "glyph_embeddings" not in n}
    bare = write_folder(tmp_path / "bare", state=state)
    bertune.train(
        "classify", [f"data.train={file}", f"model={bare}", f"out={tmp_path / 'out'}", "train.max_steps=1"]
    )
    said = capsys.readouterr().err
    assert "model: glyphs: drawn at random, since there are none" in said
    assert "weights: new, to be learnt: head.out.weight, head.out.bias\n" in said
    assert "note: transformers has no ChineseBERT" in said
    assert "vocabulary: " in said


# ---------------------------------------------------------------------------------------------------------------------------------


def fit_of(folder: Path, file: str, *settings: str, trained: bool = False) -> TrainStep:
    run, task = prepare(
        "classify",
        [
            f"data.train={file}",
            f"model={folder}",
            "train.batch_size=6",
            "train.epochs=3",
            "train.learning_rate=1e-3",
            *settings,
        ],
    )
    examples = read_and_fit([file], task, run.data, lambda _: None)
    seed_everything(run.seed)
    encoder, report = load_encoder(folder, GlyphOptions(trainable=trained))
    tokenizer = PretrainedFolder(folder).load_tokenizer(run.data, encoder.max_positions)
    AcceleratorState._reset_state(reset_partial_state=True)
    return TrainStep(
        Model(encoder, task.head(encoder, report.pooler)),
        task,
        EncodedDataset(task.encode(examples, tokenizer)),
        run,
        Accelerator(cpu=True),
    )


def run_steps(work: TrainStep, count: int) -> None:
    work.model.train()
    for rows in itertools.islice(work.batches(), count):
        work.step(rows)


@pytest.fixture
def small_file(write):
    return write(
        "rows.jsonl", [{"text": t, "label": "good" if a in GOOD else "bad"} for t, _, a in ROWS[::2]]
    )


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize(
    "settings", [[], ["train.ema=0.9", "train.active_vocabulary=false"]], ids=["plain", "ema, whole tables"]
)
def test_state_is_written_and_read_bit_for_bit(folder, small_file, tmp_path, settings, trained):
    straight = fit_of(folder, small_file, *settings, trained=trained)
    run_steps(straight, 7)
    first = fit_of(folder, small_file, *settings, trained=trained)
    run_steps(first, 3)
    first.state.write(tmp_path)
    second = fit_of(folder, small_file, *settings, trained=trained)
    second.state.read(tmp_path)
    run_steps(second, 4)
    one, two = straight.model.hf_state_dict(), second.model.hf_state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[n], two[n]) for n in one)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_active_rows_train_to_the_same_weights(folder, small_file, trained):
    settings = ["train.dropout=0.0", "train.weight_decay=0.1"]
    results = []
    for active in ("true", "false"):
        work = fit_of(folder, small_file, *settings, f"train.active_vocabulary={active}", trained=trained)
        work.model.encoder.set_dropout(0.0)
        for module in work.model.head.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        run_steps(work, 6)
        results.append(work.model.hf_state_dict())
        if active == "true":
            in_optimizer = sum(
                p.numel() for group in work.state.optimizer.param_groups for p in group["params"]
            )
            assert (work.num_active_words or 0) < 40
            # 24 KB a row of pixels: only the rows in use are in the optimizer, and none when they are frozen
            assert in_optimizer < 120_000 + (work.num_active_words or 0) * 1728 * trained + 32 * 1728
    assert results[0].keys() == results[1].keys()
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], atol=2e-6, rtol=1e-5, msg=name)


def test_the_better_epoch_is_kept(folder, tmp_path):
    """The reference wrote .5742 over .5744: here a later epoch that scores less leaves the folder as it is."""
    rows = [{"text": t, "label": "good" if a in GOOD else "bad"} for t, _, a in ROWS]
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(r) + "\n" for r in rows))
    dev = (
        tmp_path / "dev.jsonl"
    )  # what is learnt is wrong there for most rows, so scores fall from epoch to epoch
    wrong = {"good": "bad", "bad": "good"}
    dev.write_text(
        "".join(
            json.dumps(r if n % 6 == 0 else {**r, "label": wrong[r["label"]]}) + "\n"
            for n, r in enumerate(rows)
        )
    )
    out = tmp_path / "out"
    settings = [f"data.train={train}", f"data.dev={dev}", f"model={folder}", f"out={out}", "train.epochs=10", "train.batch_size=8",
                "train.learning_rate=2e-3", "train.precision=fp32"]  # fmt: skip
    result = bertune.train("classify", settings, quiet=True)
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    found = [e["accuracy"] for e in events if "accuracy" in e]
    assert len(found) == 10
    assert max(found) > found[-1], found
    assert result.scores["dev"].main_value == max(found)
    assert bertune.evaluate(out, str(dev), precision="fp32").scores.main_value == max(found)
    assert bertune.evaluate(out / "last", str(dev), precision="fp32").scores.main_value == found[-1]


def test_the_run_of_the_reference(folder, tmp_path, monkeypatch, capsys):
    rows = [{"sentence": f"我的{n}很{a}", "label": 100 + (a in GOOD)} for _, n, a in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    file = Path(__file__).parents[2] / "examples" / "seed-000-tnews.yaml"
    data = [f"data.{split}={tmp_path / 'rows.jsonl'}" for split in ("train", "dev")]
    result = bertune.train(
        str(file), [*data, "data.max_length=64", f"model={folder}", f"out={tmp_path / 'out'}"]
    )
    assert "0 test" in capsys.readouterr().err
    run = (result.folder / "run.yaml").read_text()
    for setting in (
        "epochs: 3",
        "batch_size: 32",
        "learning_rate: 3.0e-05",
        "weight_decay: 0.02",
        "warmup_steps: 0",
        "seed: 42",
        "glyphs: trained",
    ):
        assert setting in run, setting
    assert json.loads((result.folder / "scores.json").read_text())["run"]["steps"] == 6
    assert bertune.load(result.folder).predict(["我的狗很好"])[0].value in {"100", "101"}


def test_inspect_says_what_a_folder_holds_and_lacks(folder, tmp_path, trained):
    report = inspect(str(folder))
    assert report["kind"] == "chinesebert" and report["lacks"] == []
    assert report["encoder"]["missing"] == [] and report["encoder"]["wrong_shapes"] == []
    assert "pinyin_map and pinyin2tensor in tokenizer_config.json" in report["pinyin"]
    text = "\n".join(report_lines(report))
    assert (
        "bert.encoder.layer.*.attention.self.query.weight  32 x 32  (2 layers)" in text
        and "lacks: nothing" in text
    )
    saved = inspect(str(trained[3].folder))
    assert saved["kind"] == "chinesebert" and saved["lacks"] == []
    state = {n: t for n, t in weights().items() if "glyph" not in n}
    bare = write_folder(
        tmp_path / "bare", "shannonai", state={**state, "bert.embeddings.LayerNorm.weight": torch.ones(3)}
    )
    (bare / "vocab.txt").unlink()
    found = inspect(str(bare))["lacks"]
    assert "weight bert.embeddings.glyph_embeddings.embedding.weight" in found
    assert "weight bert.embeddings.LayerNorm.weight of the shape that config.json says" in found
    assert any(line.startswith("tokenizer: no tokenizer can be read") for line in found)
    (bare / "pytorch_model.bin").unlink()
    assert any(line.startswith("weights: cannot read the weights") for line in inspect(str(bare))["lacks"])


def test_inspect_of_other_folders(tiny, encoder_of, tmp_path):
    assert inspect(str(tiny))["lacks"] == []
    deberta = inspect(str(encoder_of("deberta")))
    assert deberta["read_by"] == "transformers" and deberta["encoder"] is None and deberta["lacks"] == []
    with pytest.raises(
        bertune.ConfigError,
        match=r"is a folder without config\.json; give a data file, or the folder of a model",
    ):
        inspect(str(tmp_path))
    with pytest.raises(bertune.ConfigError, match="settings say how to read a data file"):
        inspect(str(tiny), ["data.limit=3"])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    report = inspect(str(broken))
    assert any("config.json: is no JSON" in line for line in report["lacks"])
    assert "lacks: " in "\n".join(report_lines(report))


def test_a_run_needs_pypinyin_and_says_so(folder, small_file, tmp_path, monkeypatch):
    import sys

    from bertune.text import pinyin

    monkeypatch.setitem(sys.modules, "pypinyin", None)
    pinyin._dictionaries.cache_clear()
    with pytest.raises(bertune.MissingExtra, match=r"pip install 'bertune\[chinese\]'"):
        bertune.train(
            "classify", [f"data.train={small_file}", f"model={folder}", f"out={tmp_path / 'out'}"], quiet=True
        )
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_that_does_not_fit_is_refused(folder, small_file, tmp_path):
    bad = write_folder(tmp_path / "bad")
    with (bad / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("鱼\n龙\n")
    with pytest.raises(
        bertune.ConfigError, match=r"the tokenizer in .* has \d+ tokens, its encoder only \d+"
    ):
        bertune.train(
            "classify", [f"data.train={small_file}", f"model={bad}", f"out={tmp_path / 'out'}"], quiet=True
        )
