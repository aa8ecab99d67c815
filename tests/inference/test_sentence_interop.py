"""bertune and sentence-transformers on one folder: the same vectors, the same scores, whoever wrote it."""

from __future__ import annotations

import contextlib
import io
import json
import warnings

import numpy as np
import pytest
import torch

import bertune
from bertune.errors import ArtifactError

st = pytest.importorskip("sentence_transformers")

NOUNS, WORDS = ["dog", "cat", "tree", "house", "car", "book"], ["good", "bad", "fine", "red"]
PAIRS = [{"text": f"the {n} is {a}", "text_b": f"a {a} {n}"} for n in NOUNS for a in WORDS]
SCORED = [{**row, "label": (7 * n) % 5} for n, row in enumerate(PAIRS)]
LABELLED = [{**row, "label": (n // 3) % 2} for n, row in enumerate(PAIRS)]
NAMED = [{**row, "label": ["no", "yes"][n % 2]} for n, row in enumerate(PAIRS)]
TEXTS = [
    "the dog is good", "The DOG is Good", "a", "x", ".", "天 很 好", "天很好，我是大人。", "not very great , is it ?", "one two three",
    "good " * 100, "a big red house and " * 30 + "a cat", "\U0001f600", "unknown wörds étaient là", "  blanks   around\tand inside ",
    "12345 67", "[CLS] the cat [SEP]", "dog-house", "'quoted'", "a\nb", "cats houses bigger",
]  # fmt: skip


def opened(folder, **how):
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return st.SentenceTransformer(str(folder), device="cpu", local_files_only=True, **how)


def written(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def trained(encoder, tmp_path, task, rows, *settings, quiet=True):
    file = written(tmp_path / "rows.jsonl", rows)
    files = [f"data.train={file}", f"data.dev={file}", f"model={encoder}", f"out={tmp_path / 'out'}"]
    return bertune.train(
        task, [*files, "train.max_steps=3", "train.learning_rate=1e-3", *settings], quiet=quiet
    ).folder


def least_cosine(a, b):
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def same_vectors(theirs, ours, texts=TEXTS):
    assert len(texts) == len(TEXTS) == 20
    expected, found = theirs.encode(texts, show_progress_bar=False), ours.encode(texts)
    assert expected.shape == found.shape == (20, ours.get_embedding_dimension())
    assert expected.std(0).min() > 1e-4  # texts differ in every feature
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
    assert least_cosine(found, expected) >= 0.9999


POOLINGS = {
    "mean": ["options.pooling=mean"],
    "cls, normalized": ["options.pooling=cls", "options.normalize=true"],
    "max, narrow": ["options.pooling=max", "options.embedding_dim=12"],
    "pooler": ["options.pooling=pooler"],
    "pooler, narrow, normalized": [
        "options.pooling=pooler",
        "options.embedding_dim=12",
        "options.normalize=true",
    ],
    "short texts": ["options.pooling=mean", "data.max_length=9"],
    "moving average in bf16": ["options.pooling=pooler", "train.ema=.5", "train.precision=bf16"],
}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("task", ["match", "embed"])
def test_what_bertune_trains_opens_there(task, pooling, tiny, tmp_path):
    folder = trained(tiny, tmp_path, task, {"match": SCORED, "embed": PAIRS}[task], *POOLINGS[pooling])
    for place in (folder, folder / "last"):
        theirs, ours = opened(place), bertune.load(place, precision="fp32")
        same_vectors(theirs, ours)
        assert theirs.max_seq_length == ours.max_seq_length == (9 if pooling == "short texts" else 64)
        assert ours.num_truncated_rows > 2 if pooling == "short texts" else ours.num_truncated_rows == 2
        assert theirs.similarity_fn_name == "cosine"
        assert theirs.get_embedding_dimension() == ours.get_embedding_dimension()
        expected = theirs.similarity(
            *(
                theirs.encode([row[part] for row in PAIRS], show_progress_bar=False)
                for part in ("text", "text_b")
            )
        )
        found = [p.value for p in ours.predict([(row["text"], row["text_b"]) for row in PAIRS])]
        np.testing.assert_allclose(found, expected.diagonal().numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2"])
def test_other_encoders_open_there(kind, encoder_of, tmp_path):
    folder = trained(
        encoder_of(kind),
        tmp_path,
        "embed",
        PAIRS,
        "options.pooling=mean",
        "options.embedding_dim=24",
        "options.normalize=true",
    )
    same_vectors(opened(folder), bertune.load(folder, precision="fp32"))


@pytest.mark.parametrize("loss", ["cosine", "contrastive", "softmax"])
def test_every_loss_of_match_leaves_such_a_folder(loss, tiny, tmp_path):
    rows = {"cosine": SCORED, "contrastive": LABELLED, "softmax": NAMED}[loss]
    folder = trained(tiny, tmp_path, "match", rows, f"options.loss={loss}")
    same_vectors(opened(folder), bertune.load(folder, precision="fp32"))


def test_a_pooling_without_counterpart_is_said(tiny, tmp_path, capsys):
    folder = trained(tiny, tmp_path, "match", SCORED, "options.pooling=first_last_avg", quiet=False)
    said = capsys.readouterr().err.splitlines()
    notes = [line for line in said if line.startswith("note: ") and "first_last_avg" in line]
    assert len(notes) == 1
    assert "neither transformers nor sentence-transformers has a pooling 'first_last_avg'" in notes[0]
    assert not [
        path.name
        for path in folder.rglob("*")
        if path.name in {"modules.json", "1_Pooling", "sentence_bert_config.json"}
    ]
    assert bertune.load(folder).encode(TEXTS).shape == (20, 32)
    other = tmp_path / "other"
    other.mkdir()
    trained(tiny, other, "match", SCORED, quiet=False)
    assert "sentence vectors are for SentenceTransformer(FOLDER)" in capsys.readouterr().err


def test_it_comes_back_after_they_saved_it(tiny, tmp_path):
    """Our folder in the layout of 3.0, theirs in that of 5.4: not a bit of a weight is lost on the way."""
    folder = trained(
        tiny,
        tmp_path,
        "embed",
        PAIRS,
        "options.pooling=pooler",
        "options.embedding_dim=12",
        "options.normalize=true",
    )
    theirs = opened(folder)
    theirs.save(str(tmp_path / "again"))
    assert "pooling_mode" in json.loads((tmp_path / "again" / "1_Pooling" / "config.json").read_text())
    assert not (tmp_path / "again" / "bertune.json").exists()
    ours, again = (bertune.load(place, precision="fp32") for place in (folder, tmp_path / "again"))
    assert np.array_equal(again.encode(TEXTS), ours.encode(TEXTS))
    weights = ours.model.state_dict()
    assert weights.keys() == again.model.state_dict().keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.model.state_dict().items())


# ---------------------------------------------------------------- folders of theirs


def saved(encoder, folder, pooling="mean", dense=False, normalize=False, max_length=None, **how):
    """A folder that sentence-transformers 6.2 writes, and the model it was written from."""
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.manual_seed(5)
        modules = [
            Transformer(str(encoder), **({"max_seq_length": max_length} if max_length else {})),
            Pooling(32, pooling),
        ]
        modules += [Dense(32, 12)] if dense else []  # with tanh
        modules += [Normalize()] if normalize else []
        model = st.SentenceTransformer(modules=modules, device="cpu", **how)
        model.save(str(folder))
    return model


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    "pooling", ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"]
)
def test_what_they_save_opens_here(pooling, dense, normalize, tiny, tmp_path):
    theirs = saved(tiny, tmp_path / "theirs", pooling, dense, normalize)
    ours = bertune.load(tmp_path / "theirs", precision="fp32")
    same_vectors(theirs, ours)
    if dense:
        assert [(type(m).__name__, m.out_features) for m in ours.model.head.dense] == [("Linear", 12)]
        assert ours.model.head.activations == ["tanh"]


@pytest.mark.parametrize("kind", ["roberta", "albert", "mpnet"])
def test_their_folders_of_other_encoders_open_here(kind, encoder_of, tmp_path):
    theirs = saved(encoder_of(kind), tmp_path / "theirs", dense=True, normalize=True, max_length=60)
    same_vectors(theirs, bertune.load(tmp_path / "theirs", precision="fp32"))


def test_prompts_width_and_length_of_their_folder_count(tiny, tmp_path):
    prompts = {"query": "the Dog ", "document": "not a ", "passage": "three ", "nothing": ""}
    theirs = saved(
        tiny,
        tmp_path / "theirs",
        "mean",
        True,
        True,
        11,
        prompts=prompts,
        default_prompt_name="passage",
        truncate_dim=7,
    )
    ours = bertune.load(tmp_path / "theirs", precision="fp32")
    assert (ours.prompts, ours.default_prompt_name, ours.truncate_dim, ours.max_seq_length) == (
        prompts,
        "passage",
        7,
        11,
    )
    different = []
    for call in (
        lambda m: m.encode(TEXTS),
        lambda m: m.encode_query(TEXTS),
        lambda m: m.encode_document(TEXTS),
        lambda m: m.encode(TEXTS, prompt="red "),
        lambda m: m.encode(TEXTS, prompt=""),
        lambda m: m.encode(TEXTS, prompt_name="query", normalize_embeddings=True),
        lambda m: m.encode(TEXTS, truncate_dim=3, normalize_embeddings=True),
        lambda m: m.encode_document(TEXTS, truncate_dim=12),
        lambda m: m.encode_query(TEXTS[0]),
        lambda m: m.encode(TEXTS, convert_to_tensor=True),
    ):
        expected, found = np.asarray(call(theirs)), np.asarray(call(ours))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)
        different.append(found)
    assert not np.allclose(different[0], different[1], atol=1e-3)
    assert not np.allclose(different[1], different[2], atol=1e-3)
    assert np.allclose(different[4], ours.encode(TEXTS, "nothing"))


def test_signs_are_theirs(tiny, tmp_path):
    """Both `ubinary` and `binary`."""
    theirs = saved(tiny, tmp_path / "theirs", "mean", True)
    ours = bertune.load(tmp_path / "theirs", precision="fp32")
    far_from_0 = np.abs(ours.encode(TEXTS)).min(1) > 1e-5
    assert far_from_0.sum() > 10
    for precision in ("ubinary", "binary"):
        found, expected = (model.encode(TEXTS, precision=precision) for model in (ours, theirs))
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found[far_from_0], expected[far_from_0])


def test_lower_case_is_theirs(tiny, tmp_path):
    folder = tmp_path / "theirs"
    saved(tiny, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # a tokenizer that keeps capitals
        text = (folder / name).read_text(encoding="utf-8")
        changed = text.replace('"lowercase": true', '"lowercase": false').replace(
            '_case": true', '_case": false'
        )
        (folder / name).write_text(changed, encoding="utf-8")
    assert '"lowercase": false' in (folder / "tokenizer.json").read_text(encoding="utf-8")
    for lower in (False, True):
        file = folder / "sentence_bert_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "do_lower_case": lower}))
        theirs, ours = opened(folder), bertune.load(folder, precision="fp32")
        # Older versions made the letters of "[CLS]" small too, as we do; 6.2 does not.
        same_vectors(
            theirs, ours, [text.replace("[CLS]", "[cls]").replace("[SEP]", "[sep]") for text in TEXTS]
        )
        big, small = ours.encode(["The DOG", "the dog"])
        assert np.allclose(big, small, atol=1e-5) == lower
        assert ours.predict([("The DOG", "the dog")])[0].value == pytest.approx(
            float(ours.similarity(big, small)), abs=1e-5
        )


@pytest.mark.parametrize("pooling", [("mean", "cls"), ("lasttoken", "max")])
def test_other_poolings_are_refused(pooling, tiny, tmp_path):
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        st.SentenceTransformer(modules=[Transformer(str(tiny)), Pooling(32, pooling)], device="cpu").save(
            str(tmp_path / "theirs")
        )
    with pytest.raises(
        ArtifactError,
        match=r"1_Pooling.*has the pooling .*open this folder with sentence-transformers itself",
    ):
        bertune.load(tmp_path / "theirs")


# ---------------------------------------------------------------- the same scores


def evaluated(tmp_path, rows):
    return bertune.evaluate(
        tmp_path / "theirs", str(written(tmp_path / "rows.jsonl", rows)), precision="fp32"
    )


def test_scored_pairs_have_their_figures(tiny, tmp_path):
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    theirs = saved(tiny, tmp_path / "theirs", "mean", True, True)
    evaluation = evaluated(tmp_path, SCORED)
    scores, loss, num_cut = evaluation.scores, evaluation.loss, evaluation.num_truncated_rows
    sides = [[row[part] for row in SCORED] for part in ("text", "text_b")]
    expected = EmbeddingSimilarityEvaluator(*sides, [row["label"] for row in SCORED], write_csv=False)(theirs)
    assert (scores.main_metric, scores.higher_is_better, num_cut) == ("spearman", True, 0)
    assert scores.values == pytest.approx(
        {n: expected[f"{n}_cosine"] for n in ("spearman", "pearson")}, abs=1e-4
    )
    assert np.isnan(loss)


def test_labelled_pairs_have_their_figures(tiny, tmp_path):
    from sentence_transformers.sentence_transformer.evaluation import BinaryClassificationEvaluator

    theirs = saved(tiny, tmp_path / "theirs", "cls", True)
    scores = evaluated(tmp_path, LABELLED).scores
    sides = [[row[part] for row in LABELLED] for part in ("text", "text_b")]
    expected = BinaryClassificationEvaluator(*sides, [row["label"] for row in LABELLED], write_csv=False)(
        theirs
    )
    assert scores.main_metric == "average_precision"
    names = {"average_precision": "ap", "f1": "f1", "precision": "precision", "recall": "recall"}
    assert {n: scores.values[n] for n in names} == pytest.approx(
        {n: expected[f"cosine_{x}"] for n, x in names.items()}, abs=1e-6
    )
    assert (
        scores.values["accuracy"] >= expected["cosine_accuracy"] - 1e-9
    )  # which may also call all rows negative


def test_a_search_has_their_figures(tiny, tmp_path):
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    rows = [
        *PAIRS,
        {"text": PAIRS[0]["text"], "text_b": "one more"},
        {"text": PAIRS[0]["text"], "text_b": PAIRS[9]["text_b"]},
    ]
    theirs = saved(tiny, tmp_path / "theirs", "max", True)
    evaluation = evaluated(tmp_path, rows)
    scores, loss = evaluation.scores, evaluation.loss
    queries, documents = (list(dict.fromkeys(row[part] for row in rows)) for part in ("text", "text_b"))
    relevant = {q: {row["text_b"] for row in rows if row["text"] == q} for q in queries}
    expected = InformationRetrievalEvaluator(
        {q: q for q in queries}, {d: d for d in documents}, relevant, precision_recall_at_k=[1, 5, 10], mrr_at_k=[10], ndcg_at_k=[10],
        accuracy_at_k=[1], write_csv=False, show_progress_bar=False,
    )(theirs)  # fmt: skip
    assert scores.main_metric == "ndcg@10"
    assert scores.values == pytest.approx(
        {name: expected[f"cosine_{name}"] for name in scores.values}, abs=1e-6
    )
    assert 0 < scores.main_value < 1
    assert np.isfinite(loss)
