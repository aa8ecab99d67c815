"""An ensemble predicts the mean of what its members predict, and opens as any saved folder does."""

from __future__ import annotations

import copy
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import ENGLISH, make_encoder

import bertune
from bertune.artifact.ensemble import EnsembleWriter, write_ensemble
from bertune.artifact.read import read_artifact
from bertune.errors import ArtifactError, ConfigError
from bertune.heads.crf import CRFPotentials, span_log_probability, viterbi
from bertune.inference.vectors import pair_similarities
from bertune.tasks.base import ensembling

WORDS = ENGLISH.split()[:26]
TEXTS = ["good dog", "a red house is not a cat", "poor tree bad dog", "blue", "great red cat and dog " * 3]
PAIRS = [("good dog", "bad cat"), ("a red house", "the red house"), ("blue tree", "blue tree"), ("dog", "a")]


def make_rows(form: str) -> list[dict]:
    r = random.Random(form)

    def text() -> str:
        return " ".join(r.choice(WORDS) for _ in range(r.randint(2, 9)))

    rows = []
    for n in range(32):
        row: dict = {"text": text()}
        words = row["text"].split()
        if form == "single":
            row["label"] = "abc"[n % 3]
        elif form == "multi":
            row["label"] = [w for w in ("dog", "cat", "tree") if w in words]
        elif form == "number":
            row["label"] = round(len(words) / 2 + n / 100, 3)
        elif form == "tags":
            row = {
                "text": words,
                "label": ["B-X" if w in {"dog", "cat"} else "B-Y" if w == "red" else "O" for w in words],
            }
        else:
            row["text_b"] = text()
            if form != "pairs":
                row["label"] = n % 5 if form == "scores" else ["no", "maybe", "yes"][n % 3]
        rows.append(row)
    return rows


KINDS = {
    "single": ("classify", "single", {}),
    "mean pooling": ("classify", "single", {"pooling": "mean"}),
    "multi": ("classify", "multi", {}),
    "regress": ("regress", "number", {}),
    "tag": ("tag", "tags", {}),
    "crf": ("tag", "tags", {"decoder": "crf"}),
    "match": ("match", "scores", {}),
    "softmax": ("match", "labels", {"loss": "softmax"}),
    "embed": ("embed", "pairs", {"matryoshka": [8]}),
    "dot": ("embed", "pairs", {"similarity": "dot"}),
    "manhattan": ("match", "scores", {"similarity": "manhattan"}),
}


class Trained:
    """Members by kind, trained when they are asked for: two seeds, on two encoders of one tokenizer."""

    def __init__(self, place: Path, tiny: Path) -> None:
        self.place = place
        self.encoders = [tiny, make_encoder(place / "wider", seed=7, hidden_size=48)]

    def rows(self, form: str) -> Path:
        file = self.place / f"{form}.jsonl"
        if not file.exists():
            lines = (json.dumps(row) + "\n" for row in make_rows(form))
            file.write_text("".join(lines), encoding="utf-8")
        return file

    def member(self, kind: str, seed: int = 0, **settings: object) -> Path:
        task, form, options = KINDS[kind]
        name = "-".join([kind.replace(" ", "_"), str(seed), *(f"{k}={v}" for k, v in settings.items())])
        out = self.place / "members" / name
        if not out.exists():
            chosen = {k.removeprefix("options_"): v for k, v in settings.items() if k.startswith("options_")}
            data = {k.removeprefix("data_"): v for k, v in settings.items() if k.startswith("data_")}
            rows = str(self.rows(form))
            run = {
                "task": task,
                "model": str(self.encoders[seed % 2]),
                "seed": seed,
                "out": str(out),
                "data": {"train": rows, "dev": rows, **data},
                "options": {**options, **chosen},
                "train": {"max_steps": 4, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"},
            }
            bertune.train(run, quiet=True)
        return out

    def members(self, kind: str) -> list[Path]:
        return [self.member(kind, seed) for seed in range(3)]

    def ensemble(self, kind: str) -> Path:
        out = self.place / "ensembles" / kind.replace(" ", "_")
        return out if out.exists() else bertune.ensemble(self.members(kind), out)


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"), tiny)


def load(folder: Path, precision: str = "fp32") -> bertune.Pipeline:
    return bertune.load(folder, device="cpu", precision=precision)


def predict(folder: Path, texts: list, precision: str = "fp32") -> list[bertune.Prediction]:
    return load(folder, precision).predict(texts)


def probabilities(predictions: list[bertune.Prediction]) -> np.ndarray:
    return np.array([list(p.probabilities.values()) for p in predictions])


# ---------------------------------------------------------------- the mean


@pytest.mark.parametrize("kind", ["single", "mean pooling", "multi"])
def test_classify_predicts_the_mean_probabilities(kind, trained):
    mean = np.mean([probabilities(predict(m, TEXTS)) for m in trained.members(kind)], 0)
    found = predict(trained.ensemble(kind), TEXTS)
    np.testing.assert_allclose(probabilities(found), mean, atol=2e-7)
    if kind == "multi":
        task = load(trained.ensemble(kind)).task
        thresholds = [load(m).task.thresholds for m in trained.members(kind)]
        np.testing.assert_allclose(task.thresholds, np.mean(thresholds, 0))
        labels = np.array(task.labels)
        assert [p.value for p in found] == [tuple(labels[row >= task.thresholds]) for row in mean]
    else:
        labels = load(trained.ensemble(kind)).task.labels
        assert [p.value for p in found] == [labels[n] for n in mean.argmax(1)]
        np.testing.assert_allclose([p.confidence for p in found], mean.max(1), atol=2e-7)


def test_regress_predicts_the_mean_number(trained):
    members = [[p.value for p in predict(m, TEXTS)] for m in trained.members("regress")]
    found = [p.value for p in predict(trained.ensemble("regress"), TEXTS)]
    np.testing.assert_allclose(found, np.mean(members, 0), rtol=1e-6)


def test_match_by_softmax_predicts_the_mean_probabilities(trained):
    mean = np.mean([probabilities(predict(m, PAIRS)) for m in trained.members("softmax")], 0)
    found = predict(trained.ensemble("softmax"), PAIRS)
    np.testing.assert_allclose(probabilities(found), mean, atol=2e-7)


@pytest.mark.parametrize("kind", ["match", "embed", "dot", "manhattan"])
def test_similarities_are_the_mean(kind, trained):
    members = [[p.value for p in predict(m, PAIRS)] for m in trained.members(kind)]
    pipeline = load(trained.ensemble(kind))
    found = [p.value for p in pipeline.predict(PAIRS)]
    np.testing.assert_allclose(found, np.mean(members, 0), rtol=2e-6, atol=1e-6)
    vectors = pipeline.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), pipeline.get_embedding_dimension()) == (len(TEXTS), 32 + 48 + 32)
    pairwise = [load(m).similarity(*[load(m).encode(TEXTS)] * 2).numpy() for m in trained.members(kind)]
    np.testing.assert_allclose(
        pipeline.similarity(vectors, vectors), np.mean(pairwise, 0), rtol=2e-5, atol=1e-5
    )
    first, last = pipeline.encode(TEXTS[:1]), pipeline.encode(TEXTS[-1:])
    np.testing.assert_allclose(
        pair_similarities(first, last, pipeline.similarity_fn_name), np.mean(pairwise, 0)[0, -1], rtol=2e-5
    )
    if kind in {"match", "embed"}:
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_words_are_tagged_by_the_mean_probabilities(trained):
    pipelines = [load(m) for m in trained.members("tag")]
    mean = np.mean([emissions(p, TEXTS).softmax(-1).numpy() for p in pipelines], 0)
    whole = load(trained.ensemble("tag"))
    np.testing.assert_allclose(emissions(whole, TEXTS).exp().numpy(), mean, atol=2e-7)
    check_decoded(whole, outputs(whole, TEXTS), TEXTS)


def test_a_crf_has_the_mean_potentials(trained):
    pipelines = [load(m) for m in trained.members("crf")]
    members = [outputs(p, TEXTS) for p in pipelines]
    whole = load(trained.ensemble("crf"))
    found = outputs(whole, TEXTS)
    for name, scores in found._asdict().items():
        expected = np.mean([getattr(m, name).double().numpy() for m in members], 0)
        np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert torch.isinf(found.transitions).any()  # illegal pairs stay illegal
    check_decoded(whole, found, TEXTS)


def batch_of(pipeline: bertune.Pipeline, texts: list[str]):
    from bertune.data.dataset import EncodedDataset
    from bertune.types import Location, Row

    rows = [Row({"text": text.split()}, Location("texts", n)) for n, text in enumerate(texts, 1)]
    dataset = EncodedDataset(pipeline.task.encode([pipeline.task.read(r) for r in rows], pipeline.tokenizer))
    return dataset.get_batch(range(len(texts)), pipeline.task.collate_target)


@torch.inference_mode()
def outputs(pipeline: bertune.Pipeline, texts: list[str]) -> CRFPotentials:
    return pipeline.model(batch_of(pipeline, texts))


def emissions(pipeline: bertune.Pipeline, texts: list[str]) -> torch.Tensor:
    return outputs(pipeline, texts).emissions.double()


def check_decoded(pipeline: bertune.Pipeline, out: CRFPotentials, texts: list[str]) -> None:
    """The tags are the best legal path of the mean, and each confidence is a probability of the mean."""
    words = tuple(len(text.split()) for text in texts)
    best = [pipeline.task.tags[n] for n in viterbi(out, words).tolist()]
    found = pipeline.predict([text.split() for text in texts])
    assert [tag for p in found for _, tag in p.tags] == best
    singles = torch.arange(sum(words))
    chance = span_log_probability(out, words, viterbi(out, words), singles, singles).exp()
    assert all(0 <= e.confidence <= 1 + 1e-6 for p in found for e in p.value)
    assert chance.max() <= 1 + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_copies_of_members_change_nothing(kind, trained, tmp_path):
    """One member twice is that member; members in another order predict the same, beyond rounding."""
    texts = PAIRS if KINDS[kind][0] in {"match", "embed"} else TEXTS
    first, second, third = trained.members(kind)
    twice = write_ensemble(tmp_path / "twice", [first, first])
    compare(predict(twice, texts), predict(first, texts))
    other = write_ensemble(tmp_path / "other", [third, first, second])
    if kind != "multi":  # whose thresholds come from the first and the mean
        compare(predict(other, texts), predict(trained.ensemble(kind), texts))
    else:
        np.testing.assert_allclose(
            probabilities(predict(other, texts)),
            probabilities(predict(trained.ensemble(kind), texts)),
            atol=2e-7,
        )


def compare(found: list[bertune.Prediction], expected: list[bertune.Prediction]) -> None:
    for one, other in zip(found, expected, strict=True):
        if isinstance(other.value, float):
            assert one.value == pytest.approx(other.value, rel=2e-6, abs=1e-6)
            continue
        if other.tags is not None:
            assert one.tags == other.tags
            np.testing.assert_allclose(
                [e.confidence for e in one.value], [e.confidence for e in other.value], atol=2e-6
            )
            continue
        assert one.value == other.value
        np.testing.assert_allclose(probabilities([one]), probabilities([other]), atol=2e-7)


LOGITS = st.lists(
    st.lists(st.floats(-200, 200, width=32), min_size=3, max_size=3), min_size=2, max_size=5
).map(lambda rows: torch.tensor(rows)[:, None])


@given(LOGITS)
def test_the_mean_of_classes_is_exact(logits):
    """Also where the probabilities of fp32 are 0 or 1: the loss is the logarithm of the mean."""
    mean = torch.softmax(logits.double(), -1).mean(0)
    found = ensembling.mean_class_logits(list(logits))
    np.testing.assert_allclose(found.softmax(-1), mean, atol=2e-7)
    reference = np.logaddexp.reduce(torch.log_softmax(logits.double(), -1).numpy(), 0) - np.log(len(logits))
    np.testing.assert_allclose(found, reference, rtol=1e-6, atol=1e-6)


@given(LOGITS)
def test_the_mean_of_several_labels_is_exact(logits):
    mean = torch.sigmoid(logits.double()).mean(0)
    found = ensembling.mean_label_logits(list(logits))
    assert torch.isfinite(found).all()
    np.testing.assert_allclose(found.sigmoid(), mean, atol=2e-7)
    np.testing.assert_allclose((-found).sigmoid(), torch.sigmoid(-logits.double()).mean(0), atol=2e-7)


@given(
    st.sampled_from(["cosine", "dot", "manhattan"]),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.integers(0, 2**31),
)
def test_vectors_side_by_side_have_the_mean_similarity(similarity, widths, seed):
    r = np.random.default_rng(seed)
    left, right = ([torch.tensor(r.normal(size=(4, w)), dtype=torch.float32) for w in widths] for _ in "ab")
    mean = np.mean(
        [pair_similarities(a.numpy(), b.numpy(), similarity) for a, b in zip(left, right, strict=True)], 0
    )
    joined = [ensembling.join_vectors(vectors, similarity).numpy() for vectors in (left, right)]
    np.testing.assert_allclose(pair_similarities(*joined, similarity), mean, rtol=1e-5, atol=2e-6)


# ---------------------------------------------------------------- a folder like any other


def test_each_member_opens_alone_and_is_the_model_it_was(trained):
    folder = trained.ensemble("single")
    names = [p.name for p in sorted((folder / "members").iterdir())]
    assert names == ["member-1", "member-2", "member-3"]
    for name, source in zip(names, trained.members("single"), strict=True):
        assert predict(folder / "members" / name, TEXTS) == predict(source, TEXTS)
        assert not (folder / "members" / name / "last").exists()
    assert (trained.member("single") / "last").is_dir()  # which the copy leaves behind
    metadata = json.loads((folder / "bertune.json").read_text())
    assert metadata["ensemble"] == names
    assert metadata["format"] > 2  # versions that know no ensembles say that a newer one is needed
    card = (folder / "README.md").read_text()
    assert "ensemble of 3 models" in card
    assert "No other tool opens it" in card
    assert "library_name: bertune" in card


@pytest.mark.parametrize("kind", ["single", "embed"])
def test_copies_and_pickles_predict_the_same(kind, trained):
    pipeline = load(trained.ensemble(kind))
    texts = PAIRS if kind == "embed" else TEXTS
    expected = pipeline.predict(texts)
    for other in (copy.deepcopy(pipeline), pickle.loads(pickle.dumps(pipeline))):
        assert [p.value for p in other.predict(texts)] == [p.value for p in expected]
        assert other.model.encoder.encoders[0] is other.model.members[0].encoder


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("kind", ["single", "embed", "crf"])
def test_low_precisions_are_the_mean_of_the_members_in_that_precision(kind, precision, trained):
    texts = PAIRS if kind == "embed" else TEXTS
    pipeline = load(trained.ensemble(kind), precision)
    assert {m.encoder.numerics.precision for m in pipeline.model.members} == {precision}
    assert pipeline.model.encoder.numerics.precision == precision
    found = pipeline.predict(texts)
    members = [predict(m, texts, precision) for m in trained.members(kind)]
    if kind == "single":
        np.testing.assert_allclose(
            probabilities(found), np.mean([probabilities(m) for m in members], 0), atol=1e-6
        )
    elif kind == "embed":
        mean = np.mean([[p.value for p in m] for m in members], 0)
        np.testing.assert_allclose([p.value for p in found], mean, atol=1e-5)
    else:
        assert [len(p.tags) for p in found] == [len(p.tags) for p in members[0]]


def test_vectors_of_ensembles_are_told_apart(trained, tmp_path):
    first, second, _ = trained.members("embed")
    folders = [
        first,
        trained.ensemble("embed"),
        write_ensemble(tmp_path / "a", [first, second]),
        write_ensemble(tmp_path / "b", [second, first]),
        write_ensemble(tmp_path / "c", [first, first]),
    ]
    prints = [load(folder).fingerprint() for folder in folders]
    assert len(set(prints)) == len(prints)
    assert load(write_ensemble(tmp_path / "d", [first, second])).fingerprint() == prints[2]


def test_a_member_at_a_time_from_memory(trained, tmp_path):
    """What crossval does: a model is written and let go before the next one is made."""
    state = {**read_artifact(trained.member("multi")).task.state(), "thresholds": [0.3, 0.5, 0.7]}
    with EnsembleWriter(tmp_path / "new" / "ensemble") as writer:
        for folder in trained.members("multi"):
            path = writer.add(read_artifact(folder))
            assert path.is_dir()
            assert not writer.folder.exists()
        scores = bertune.evaluate(trained.member("multi"), trained.rows("multi"), device="cpu").scores
        done = writer.finish(state=state, scores={"out-of-fold": scores}, origin="Of 3 folds.")
    assert sorted(p.name for p in done.parent.iterdir()) == ["ensemble"]
    pipeline = load(done)
    assert pipeline.task.thresholds == [0.3, 0.5, 0.7]
    np.testing.assert_array_equal(
        probabilities(pipeline.predict(TEXTS)), probabilities(predict(trained.ensemble("multi"), TEXTS))
    )
    card = (done / "README.md").read_text()
    assert "Of 3 folds." in card
    assert "### out-of-fold" in card
    assert "chose the checkpoint" not in card
    assert json.loads((done / "scores.json").read_text())["out-of-fold"]["values"] == scores.values


def test_a_writer_that_stops_leaves_nothing(trained, tmp_path):
    def stop_in_the_middle() -> None:
        with EnsembleWriter(tmp_path / "ensemble") as writer:
            writer.add_folder(trained.member("single"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle()
    with pytest.raises(ConfigError, match="two or more models, got 1"):
        write_ensemble(tmp_path / "ensemble", [trained.member("single")])
    with pytest.raises(ArtifactError, match=r"is a model of task regress, and .* one of task classify"):
        write_ensemble(tmp_path / "ensemble", [trained.member("single"), trained.member("regress")])
    assert list(tmp_path.iterdir()) == []


def test_beside_other_files_and_by_moving(trained, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.csv").write_text("mine")
    copies = [Path(shutil.copytree(m, tmp_path / m.name)) for m in trained.members("single")]
    with EnsembleWriter(out) as writer:
        for folder in copies:
            writer.add_folder(folder, move=True)
        writer.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "predictions.csv").read_text() == "mine"
    assert predict(out, TEXTS) == predict(trained.ensemble("single"), TEXTS)
    with pytest.raises(ConfigError, match="holds members already"):
        EnsembleWriter(out)


def test_encoders_of_several_architectures(trained, encoder_of, tmp_path):
    """Bertune's own, and one that transformers computes."""
    members = [trained.member("single")]
    for kind in ("distilbert", "albert"):
        members.append(tmp_path / kind)
        rows, train = str(trained.rows("single")), {"max_steps": 2, "precision": "fp32"}
        run = {"task": "classify", "model": str(encoder_of(kind)), "out": str(members[-1]), "train": train}
        bertune.train({**run, "data": {"train": rows}}, quiet=True)
    out = bertune.ensemble(members, tmp_path / "out")
    mean = np.mean([probabilities(predict(m, TEXTS)) for m in members], 0)
    np.testing.assert_allclose(probabilities(predict(out, TEXTS)), mean, atol=1e-6)
    assert load(out).model.encoder.model_type == "bert, distilbert, albert"
    with pytest.raises(ConfigError, match="precision int8: not for the architecture albert"):
        load(out, "int8")


FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "format-1"


@pytest.mark.parametrize("name", ["classify", "multi", "regress", "tag", "match", "embed"])
def test_folders_of_the_first_format_are_members(name, tmp_path):
    texts = PAIRS if name in {"match", "embed"} else TEXTS
    if (
        len(load(FORMAT_1 / name).task.columns.required) == 2
        or getattr(load(FORMAT_1 / name).task, "num_texts", 1) == 2
    ):
        texts = PAIRS
    out = bertune.ensemble([FORMAT_1 / name] * 2, tmp_path / "out")
    compare(predict(out, texts), predict(FORMAT_1 / name, texts))


def test_what_was_learnt_for_one_model_is_not_taken_over():
    states = [{"labels": ["a"], "thresholds": [0.2], "calibration": {"x": 1}}, {"thresholds": [0.4]}]
    state, notes = ensembling.ensemble_state(states)
    assert state == {"labels": ["a"], "thresholds": [pytest.approx(0.3)]}
    assert [note.split(":")[0] for note in notes] == ["calibration", "thresholds"]
    assert ensembling.ensemble_state([{"thresholds": [0.2]}] * 2) == ({"thresholds": [0.2]}, [])


# ---------------------------------------------------------------- damage


@pytest.fixture
def damaged(trained: Trained, tmp_path: Path) -> Callable[[str], Path]:
    def get(kind: str) -> Path:
        return Path(shutil.copytree(trained.ensemble(kind), tmp_path / "damaged"))

    return get


def test_missing_and_damaged_members_are_one_error(damaged):
    folder = damaged("single")
    shutil.rmtree(folder / "members" / "member-1")
    weights = folder / "members" / "member-3" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}: this ensemble cannot be opened")
    assert "member-1: no such folder" in message
    assert "model.safetensors: missing or damaged" in message
    assert "member-2" not in message
    assert "get the folder again" in message


def test_inspect_says_what_is_missing(damaged):
    from bertune.commands.inspect import inspect, report_lines

    folder = damaged("single")
    assert report_lines(inspect(str(folder)))[-1] == "lacks: nothing"
    shutil.rmtree(folder / "members" / "member-1")
    (folder / "members" / "member-2" / "model.safetensors").unlink()
    report = inspect(str(folder))
    assert [fault.split(": ")[0] for fault in report["lacks"]] == ["member-1", "member-2"]
    assert "member-3: bert" in "\n".join(report_lines(report))


NAMES = [
    ["member-1"],
    ["member-1", "member-1"],
    [],
    "member-1",
    None,
    [1, 2],
    ["../x", "member-1"],
    ["", "member-1"],
    ["/etc", "member-1"],
    {"member-1": 1},
]


@pytest.mark.parametrize("names", NAMES, ids=repr)
def test_bertune_json_that_names_no_members(names, damaged):
    folder = damaged("single")
    file = folder / "bertune.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "ensemble": names}))
    with pytest.raises(ArtifactError, match=r"'ensemble' must name 2 or more folders inside members/"):
        load(folder)


def test_members_that_do_not_fit(damaged, trained):
    folder = damaged("single")
    place = folder / "members" / "member-2"
    for other, message in [
        (trained.member("regress"), "is a model of task regress, and .*member-1 is one of task classify"),
        (
            trained.member("multi"),
            r"several labels a row: true here, false in .*labels differ.*only here 'cat'",
        ),
        (trained.ensemble("single"), "is an ensemble itself"),
    ]:
        shutil.rmtree(place)
        shutil.copytree(other, place)
        with pytest.raises(ArtifactError, match=f"(?s){message}"):
            load(folder)


def test_another_state_than_that_of_the_members(damaged):
    folder = damaged("single")
    file = folder / "bertune.json"
    metadata = json.loads(file.read_text())
    metadata["state"]["labels"] = ["c", "b", "a"]
    file.write_text(json.dumps(metadata))
    with pytest.raises(ArtifactError, match=r"bertune\.json: labels in another order"):
        load(folder)


# ---------------------------------------------------------------- what cannot be joined

UNFIT = [
    ("single", {"data_labels": ["c", "b", "a"]}, "labels in another order than"),
    ("single", {"data_labels": ["a", "b", "c", "d"]}, "labels differ from .*only here 'd'"),
    ("single", {"data_max_length": 16}, "reads at most 16 tokens of a row, and .* 64"),
    ("single", {"data_truncation": "only_first"}, "cuts long rows by 'only_first', 'right'"),
    ("tag", {"options_decoder": "crf"}, "options.decoder: 'crf' here, 'linear' in"),
    ("tag", {"options_window_overlap": 4}, "options.window_overlap: 4 here, 128 in"),
    ("embed", {"options_similarity": "dot"}, "options.similarity: 'dot' here, 'cosine' in"),
    ("embed", {"options_similarity": "euclidean"}, "is not the mean of distances"),
    ("embed", {"options_truncate_dim": 8}, "options.truncate_dim=8: a member keeps its whole vectors"),
    ("embed", {"options_prompts": {"query": "a"}}, "options.prompts: {'query': 'a'} here"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), UNFIT, ids=lambda v: str(v)[:40])
def test_models_that_differ(kind, settings, message, trained, tmp_path):
    first, other = trained.member(kind), trained.member(kind, 1, **settings)
    with pytest.raises(ConfigError, match=message):
        bertune.ensemble([first, other], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_tokenizer(trained, tmp_path):
    from tokenizers import Tokenizer

    other = Path(shutil.copytree(trained.member("single"), tmp_path / "other"))
    tokenizer = Tokenizer.from_file(str(other / "tokenizer.json"))
    tokenizer.add_tokens(["goood"])
    content = json.loads(tokenizer.to_str())
    content["added_tokens"][-1]["id"] = 7  # an id that the encoder has
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="has another tokenizer than"):
        bertune.ensemble([trained.member("single"), other], tmp_path / "out")


def test_all_faults_at_once(trained, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").touch()
    models = [trained.member("single"), trained.ensemble("single"), trained.member("regress"), "nowhere/x"]
    with pytest.raises(ConfigError) as caught:
        bertune.ensemble(models, out)
    lines = str(caught.value).splitlines()
    assert lines[0] == "ensemble: 4 faults:"
    assert [
        word in line
        for word, line in zip(["exists", "nowhere/x", "itself", "regress"], lines[1:], strict=True)
    ]
    assert [p.name for p in out.iterdir()] == ["file"]
    with pytest.raises(ConfigError, match="two or more models, got 1"):
        bertune.ensemble([trained.member("single")], tmp_path / "new")
    with pytest.raises(ConfigError, match="a list of two or more models is needed"):
        bertune.ensemble(str(trained.member("single")), tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


TASK = '''
from bertune.tasks.regress import Regress
from bertune.tasks.base.task import Task

class Mine(Regress):
    """A number."""
    mean_output = {mean}
'''


def test_a_task_of_your_own(trained, tmp_path):
    """It must say what a mean is."""
    for mean in ("Task.mean_output", "lambda self, outputs: sum(outputs)"):
        place = tmp_path / mean[:4]
        place.mkdir()
        file = place / "mine.py"
        file.write_text(TASK.format(mean=mean))
        members = []
        for seed in (1, 2):
            members.append(place / str(seed))
            run = {
                "task": str(file),
                "model": str(trained.encoders[0]),
                "seed": seed,
                "out": str(members[-1]),
            }
            train = {"max_steps": 2, "precision": "fp32"}
            bertune.train({**run, "data": {"train": str(trained.rows("number"))}, "train": train}, quiet=True)
        if mean.startswith("Task"):
            with pytest.raises(
                ConfigError, match="task mine does not say what the mean of several outputs is"
            ):
                bertune.ensemble(members, place / "out", task=str(file))
            continue
        out = bertune.ensemble(members, place / "out", task=str(file))
        with pytest.raises(ArtifactError, match="name that file: --task FILE"):
            bertune.load(out)
        found, *parts = (
            [p.value for p in bertune.load(f, task=str(file), precision="fp32", device="cpu").predict(TEXTS)]
            for f in (out, *members)
        )
        np.testing.assert_allclose(found, np.sum(parts, 0), rtol=1e-6)


def test_training_does_not_start_from_an_ensemble(trained, tmp_path):
    folder = trained.ensemble("embed")
    run = {"task": "embed", "data": {"train": str(trained.rows("pairs"))}, "out": str(tmp_path / "out")}
    member = folder / "members" / "member-1"
    with pytest.raises(ConfigError, match=f"is an ensemble of several models.*such as {member}"):
        bertune.train({**run, "model": str(folder)}, quiet=True)
    with pytest.raises(ConfigError, match="is an ensemble of finished models, and no run"):
        bertune.train(str(folder), resume=True, quiet=True)
    assert list(tmp_path.iterdir()) == []
    bertune.train({**run, "model": str(member), "train": {"max_steps": 1}}, quiet=True)


def test_vectors_are_not_truncated(trained):
    pipeline = load(trained.ensemble("embed"))
    for call in (
        lambda: pipeline.encode(TEXTS, truncate_dim=8),
        lambda: bertune.evaluate(trained.ensemble("embed"), trained.rows("pairs"), truncate_dim=8),
    ):
        with pytest.raises(ConfigError, match="truncate_dim: 8 is for the vectors of one model"):
            call()
    assert pipeline.task.options.matryoshka == []  # or the loss would count the first features of one member
    assert load(trained.member("embed")).task.options.matryoshka == [8]
