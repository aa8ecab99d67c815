"""Entities stand where they are said to stand, their tags are legal, and their probability is that of all legal chains."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bertune
from bertune.commands.train import prepare
from bertune.config.schema import TrainConfig
from bertune.data.dataset import EncodedDataset
from bertune.data.tags import is_transition_allowed, parse_tag, spans_to_tags, tags_to_spans
from bertune.encoders.load import load_encoder
from bertune.errors import DataError
from bertune.heads.crf import viterbi
from bertune.heads.model import Model
from bertune.inference.pipeline import Pipeline
from bertune.tasks.base.reading import read_and_fit
from bertune.text.load import load_tokenizer
from bertune.training.optim import parameter_groups
from bertune.types import Location, Ragged, Row

KINDS = {"dog": "animal", "cat": "animal", "tree": "plant", "one": "plant", "house": "thing", "car": "thing"}
TAGGED = [
    {
        "text": ["the", *size, noun, "is", adjective],
        "label": ["O", *spans_to_tags([(0, len(size) + 1, kind)], len(size) + 1, "BIO"), "O", "O"],
    }
    for size in ([], ["big"], ["very", "small"], ["red"])
    for adjective in ("good", "bad")
    for noun, kind in KINDS.items()
]
"""48 sentences; what is looked for has one word to three."""
LONG = "the big dog is good , not the very small tree ; " * 5


def rows_file(folder, rows=TAGGED):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def built(tiny, folder, *overrides, rows=TAGGED, loud=30.0):
    """A model by hand, with random weights that are large enough to be sure of something."""
    file = rows_file(folder, rows)
    run, task = prepare("tag", [f"data.train={file}", *overrides])
    examples = read_and_fit([str(file)], task, run.data, lambda _: None)
    torch.manual_seed(0)
    encoder, report = load_encoder(tiny)
    tokenizer = load_tokenizer(tiny, encoder.max_positions, run.data)
    model = Model(encoder, task.head(encoder, report.pooler)).eval()
    with torch.no_grad():
        model.head.out.weight *= loud
        for scores in model.head.crf.values():
            scores.normal_()
    return Pipeline(model, task, tokenizer, torch.device("cpu")), examples


FORMS = {
    "linear-BIO": ["options.scheme=BIO"],
    "linear-BIOS": ["options.scheme=BIOS"],
    "linear-BMES": ["options.scheme=BMES", "options.units=characters"],
    "crf-BIO": ["options.decoder=crf"],
    "crf-BIOES": ["options.decoder=crf", "options.scheme=BIOES", "data.max_length=12", "options.window_overlap=4"],
}  # fmt: skip


@pytest.fixture(params=FORMS, scope="module")
def random_model(request, tiny, tmp_path_factory):
    return built(tiny, tmp_path_factory.mktemp(request.param), *FORMS[request.param])[0]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    file = rows_file(folder)
    settings = [
        "train.epochs=20",
        "train.batch_size=8",
        "train.learning_rate=3e-3",
        "options.decoder=crf",
        "options.scheme=BIOES",
    ]
    return bertune.train(
        "tag",
        [f"data.train={file}", f"data.dev={file}", f"model={tiny}", f"out={folder / 'out'}", *settings],
        quiet=True,
    )


def read(pipeline, texts):
    return [pipeline.task.read(Row({"text": text}, Location("texts", n))) for n, text in enumerate(texts, 1)]


@torch.inference_mode()
def emissions(pipeline, encoded):
    rows = EncodedDataset(encoded)
    return pipeline.model(rows.get_batch(range(len(rows)), pipeline.task.collate_target)).emissions


def without_windows(encoded):
    return [replace(e, inputs=(replace(e.inputs[0], window_lengths=None),)) for e in encoded]


def test_short_texts_are_read_as_if_there_were_no_windows(tiny, tmp_path):
    pipeline, examples = built(tiny, tmp_path)
    encoded = pipeline.task.encode(examples[:9], pipeline.tokenizer)
    assert all(len(e.inputs[0].window_lengths) == 1 for e in encoded)
    assert torch.equal(emissions(pipeline, encoded), emissions(pipeline, without_windows(encoded)))
    assert pipeline.task.report() == []


@pytest.mark.parametrize("overlap", [0, 3, 128])
def test_words_of_a_long_text_are_read_in_their_windows(tiny, tmp_path, overlap):
    pipeline, examples = built(tiny, tmp_path, "data.max_length=16", f"options.window_overlap={overlap}")
    texts = [*read(pipeline, [LONG, "the dog"]), examples[0]]
    encoded = pipeline.task.encode(texts, pipeline.tokenizer)
    found = emissions(pipeline, encoded)
    assert len(found) == sum(len(text.words) for text in texts)
    expected = []
    for e in encoded:
        (piece,) = e.inputs
        begins = [0, *itertools.accumulate(piece.window_lengths)]
        assert begins[-1] == len(piece.input_ids)
        for start, stop in itertools.pairwise(begins):  # each window by itself
            ids = torch.tensor(piece.input_ids[start:stop])
            with torch.inference_mode():
                states = pipeline.model.encoder(
                    Ragged(ids, ids * 0, torch.tensor([0, len(ids)]), (len(ids),))
                )
                expected.append(
                    pipeline.model.head.out(
                        states[[at - start for at in piece.word_positions if start <= at < stop]]
                    )
                )
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-5)
    (long, _, _) = (e.inputs[0] for e in encoded)
    assert len(long.window_lengths) > 4
    assert pipeline.task.report() == [
        f"1 of 3 texts are longer than max_length and are read in {len(long.window_lengths)} windows"
    ]
    together, alone = (
        list(pipeline.predict_stream(texts)),
        [next(pipeline.predict_stream([text])) for text in texts],
    )
    assert [p.tags for p in together] == [p.tags for p in alone]
    assert [word for word, _ in together[0].tags] == LONG.split()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3))
def test_entities_of_any_text(random_model, texts):
    examples = read(random_model, texts)
    for text, example, found in zip(texts, examples, random_model.predict(texts), strict=True):
        end = 0
        for entity in found.value:
            assert end <= entity.start < entity.end <= len(text)
            assert text[entity.start : entity.end] == entity.text
            assert entity.label in random_model.task.entity_types
            assert 0 < entity.confidence <= 1
            end = entity.end
        words = [text[a:b] for a, b in example.words]
        assert [word for word, _ in found.tags] == words
        spans = tags_to_spans([parse_tag(tag) for _, tag in found.tags])
        assert [(example.words[a][0], example.words[b - 1][1], kind) for a, b, kind in spans] == [
            e[:3] for e in found.value
        ]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.sampled_from(["dog", "the", "big", "天", "x", "DOGS", "!", " "]), min_size=1, max_size=25
        ),
        min_size=1,
        max_size=4,
    )
)
def test_predicted_chains_are_legal(random_model, sentences):
    task = random_model.task
    rows = EncodedDataset(task.encode(read(random_model, sentences), random_model.tokenizer))
    with torch.inference_mode():
        batch = rows.get_batch(range(len(rows)), task.collate_target)
        out = random_model.model(batch)
    lengths = batch.ragged.num_words
    for row in viterbi(out, lengths).split(list(lengths)):
        written = [task.tags[n] for n in row.tolist()]
        chain = [None, *map(parse_tag, written), None]
        assert all(is_transition_allowed(task.scheme, a, b) for a, b in itertools.pairwise(chain))
        spelt = spans_to_tags(tags_to_spans(chain[1:-1]), len(written), task.scheme)
        assert spelt == written


def test_random_models_find_something(random_model):
    """Else the tests above would have nothing to look at."""
    found = random_model.predict([LONG, "天地人大小 dog", "red round books"])
    assert sum(len(p.value) for p in found) > 5
    assert any(e.confidence < 0.9 for p in found for e in p.value)


def test_blank_words_belong_to_what_is_around_them(trained):
    model = bertune.load(trained.folder)
    (found,) = model.predict_stream(
        [
            model.task.read(
                Row({"text": ["the", "very", "\u200b", "small", "dog", " ", "is", "bad"]}, Location("x", 1))
            )
        ]
    )
    assert [e[2:4] for e in found.value] == [("animal", "very \u200b small dog")]
    assert [tag for _, tag in found.tags] == [
        "O",
        "B-animal",
        "I-animal",
        "I-animal",
        "E-animal",
        "O",
        "O",
        "O",
    ]


def test_lists_of_words_are_predicted_as_they_are_cut(trained):
    model = bertune.load(trained.folder)
    sentences = [row["text"] for row in TAGGED]
    found = list(model.predict_stream(read(model, sentences)))
    for row, prediction in zip(TAGGED, found, strict=True):
        assert [word for word, _ in prediction.tags] == row["text"]
        assert tags_to_spans([parse_tag(t) for _, t in prediction.tags]) == tags_to_spans(
            [parse_tag(t) for t in row["label"]]
        )
        (entity,) = prediction.value
        assert " ".join(row["text"])[entity.start : entity.end] == entity.text
    plain = model.predict([" ".join(words) for words in sentences])
    assert [p.tags for p in plain] == [p.tags for p in found]


@pytest.mark.parametrize("sentence", [["the", "dog"], ["the", "big", "dog"]])
def test_predict_reads_a_list_of_words_or_refuses_it(trained, sentence):
    try:
        (found,) = bertune.load(trained.folder).predict([sentence])
    except DataError:
        return
    assert [word for word, _ in found.tags] == sentence


@pytest.mark.parametrize("form", ["linear-BIO", "linear-BIOS", "crf-BIO"])
def test_confidence_is_the_share_of_all_legal_chains(form, tiny, tmp_path):
    pipeline, _ = built(
        tiny, tmp_path, *FORMS[form], rows=[r for r in TAGGED if "thing" not in str(r)], loud=8.0
    )
    task, crf = pipeline.task, {name: scores.detach() for name, scores in pipeline.model.head.crf.items()}
    tags = [parse_tag(tag) for tag in task.tags]
    seen = 0
    for text in ("the big dog is", "cat tree a red", "dog", "small trees"):
        (found,) = pipeline.predict([text])
        scores = (
            emissions(pipeline, task.encode(read(pipeline, [text]), pipeline.tokenizer))
            .double()
            .log_softmax(-1)
        )
        shares = {}
        for path in itertools.product(range(len(tags)), repeat=len(scores)):
            edged = [None, *(tags[n] for n in path), None]
            if all(is_transition_allowed(task.scheme, a, b) for a, b in itertools.pairwise(edged)):
                score = sum(scores[t, n] for t, n in enumerate(path))
                if crf:
                    score = score + crf["start"][path[0]] + crf["end"][path[-1]]
                    score = score + sum(crf["transitions"][a, b] for a, b in itertools.pairwise(path))
                shares[path] = float(score.exp())
        best = max(shares, key=shares.get)
        spans = tags_to_spans([tags[n] for n in best])
        assert len(spans) == len(found.value)
        for (start, stop, kind), entity in zip(spans, found.value, strict=True):
            through = sum(share for path, share in shares.items() if path[start:stop] == best[start:stop])
            assert entity.label == kind
            assert entity.confidence == pytest.approx(through / sum(shares.values()), rel=1e-4)
            seen += 1
    assert seen > 2


def test_a_crf_learns_at_its_own_rate(tiny, tmp_path):
    pipeline, _ = built(tiny, tmp_path, "options.decoder=crf", "options.crf_learning_rate=0.05")
    config = TrainConfig(learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.1)
    of = {
        id(p): (g["lr"], g["weight_decay"])
        for g in parameter_groups(pipeline.model, config)
        for p in g["params"]
    }
    rates = {name: of[id(p)] for name, p in pipeline.model.head.named_parameters()}
    assert rates == {
        "out.weight": (1e-3, 0.1), "out.bias": (1e-3, 0.0),
        "crf.transitions": (0.05, 0.0), "crf.start": (0.05, 0.0), "crf.end": (0.05, 0.0),
    }  # fmt: skip
    assert {of[id(p)][0] for p in pipeline.model.encoder.parameters()} == {1e-4}
    assert prepare("tag", ["data.train=x.jsonl"])[1].options.crf_learning_rate == 1e-2
    without, _ = built(tiny, tmp_path)
    assert set(dict(without.model.head.named_parameters())) == {"out.weight", "out.bias"}


def test_what_does_not_fit_words_is_counted_and_said(tiny, tmp_path):
    rows = [
        {"text": "the dog is good", "label": [[4, 7, "animal"]]},
        {"text": "the dogs are bad", "label": [[4, 7, "animal"]]},  # inside a word
        {"text": "the cats are good", "label": [[5, 8, "animal"]]},  # from inside a word
        {"text": "a dog", "label": [[2, 3, "animal"], [3, 5, "animal"]]},  # two in one word
        {"text": "a book", "label": [[2, 4, "animal"], [4, 6, "animal"]]},  # two in one word
        {"text": "a \u0000 dog", "label": []},
    ]
    pipeline, examples = built(tiny, tmp_path, rows=rows)
    task = pipeline.task
    encoded = task.encode(examples, pipeline.tokenizer)
    assert [[task.tags[n] for n in e.target] for e in encoded] == [
        ["O", "B-animal", "O", "O"], ["O", "B-animal", "O", "O"], ["O", "B-animal", "O", "O"], ["O", "B-animal"], ["O", "B-animal"], ["O", "O"],
    ]  # fmt: skip
    inexact, lost, blank = task.report()
    assert inexact.startswith("4 of 7 entities begin or end inside a word")
    assert lost.startswith("2 of 7 entities have no word of their own")
    assert blank.startswith("1 words are blank")
    assert task.report() == []
    task.encode(examples[:1], pipeline.tokenizer)
    assert task.report() == []
    assert [e.target for e in examples][1] == ((4, 7, "animal"),)  # scored as it is


@pytest.mark.parametrize("form", FORMS)
def test_state_is_enough_to_go_on(form, tiny, tmp_path):
    pipeline, examples = built(tiny, tmp_path, *FORMS[form])
    _, fresh = prepare("tag", [f"data.train={tmp_path / 'rows.jsonl'}", *FORMS[form]])
    fresh.load_state(json.loads(json.dumps(pipeline.task.state())))
    assert (fresh.tags, fresh.entity_types, fresh.scheme, fresh.unit) == tuple(
        getattr(pipeline.task, n) for n in ("tags", "entity_types", "scheme", "unit")
    )
    assert fresh.state() == pipeline.task.state()
    assert fresh.encode(examples, pipeline.tokenizer) == pipeline.task.encode(examples, pipeline.tokenizer)


@pytest.mark.parametrize("written", ["IOB1", "BIO", "BIOS", "BIOES", "BMES"])
@pytest.mark.parametrize("scheme", ["auto", "BIO", "BIOS", "BIOES", "BMES"])
def test_files_of_any_scheme_are_learnt_in_any(written, scheme, tiny, tmp_path):
    rows = [
        {
            **row,
            "label": spans_to_tags(tags_to_spans(map(parse_tag, row["label"])), len(row["label"]), written),
        }
        for row in TAGGED
    ]
    pipeline, examples = built(tiny, tmp_path, f"options.scheme={scheme}", rows=rows)
    task = pipeline.task
    assert task.scheme == (scheme if scheme != "auto" else "BIO" if written == "IOB1" else written)
    for row, example, encoded in zip(
        TAGGED, examples, task.encode(examples, pipeline.tokenizer), strict=True
    ):
        spans = tags_to_spans(map(parse_tag, row["label"]))
        assert [task.tags[n] for n in encoded.target] == spans_to_tags(spans, len(row["text"]), task.scheme)
        assert [example.texts[0][a:b] for a, b, _ in example.target] == [
            " ".join(row["text"][a:b]) for a, b, _ in spans
        ]
