"""Sets of named entities, in the forms of their repositories."""

from __future__ import annotations

from typing import Any

from bertune.catalog.named_set import Layout, Leaderboard, NamedSet, remote_layout
from bertune.catalog.published import NER_FIGURES

_CONLL: dict[str, Any] = {"format": "conll"}
_JSON = {"format": "json", "columns": {"text": "text", "label": "label"}}


def _layout(names: tuple[str, str, str], folders: tuple[str, ...], data: dict[str, Any] = _CONLL) -> Layout:
    train, dev, test = names
    return Layout(train, dev, test, folders, data, test_is_labelled=bool(test))


def _split_names(pattern: str) -> tuple[str, str, str]:
    return pattern.format("train"), pattern.format("dev"), pattern.format("test")


def _ner(
    name: str, title: str, rows: tuple[int, int], layouts: tuple[Layout, ...], hub: str = "", trap: str = ""
) -> NamedSet:
    columns = {"columns": {"text": "tokens", "label": "ner_tags"}}
    remote = remote_layout(f"hub:{hub}", columns, test_is_labelled=True)
    return NamedSet(
        "ner", name, title, "tag", "f1", *rows, layouts, hub=remote if hub else None,
        options={"metric": "f1"}, published=NER_FIGURES.get(name, ()), trap=trap,
    )  # fmt: skip


_RESUME = ("resume", "ResumeNER")
_WEIBO = ("weibo", "WeiboNER")
_ONTONOTES = ("ontonotes4", "ontonote", "OntoNotes4", "OntoNote4NER")
_CONLL2003 = ("conll2003", "conll03", "conll-2003")

NER: tuple[NamedSet, ...] = (
    _ner(
        "resume", "Curricula vitae in Chinese: 8 types", (3821, 463),
        (
            _layout(_split_names("{}.char.bmes"), _RESUME),
            _layout(_split_names("{}.json"), _RESUME, _JSON),
        ),
    ),
    _ner(
        "weibo", "Posts in Chinese: 8 types", (1350, 270),
        (
            _layout(_split_names("{}.all.bmes"), _WEIBO),
            _layout(_split_names("{}.char.bmes"), _WEIBO),
            _layout(_split_names("weiboNER_2nd_conll.{}"), _WEIBO, {**_CONLL, "convert": "golden_horse"}),
            _layout(_split_names("{}.json"), _WEIBO, _JSON),
        ),
        trap="16 % of its dev texts are training rows too; one epoch is 43 steps of 32 rows",
    ),
    _ner(
        "msra", "News in Chinese: places, organisations, persons", (0, 0),
        (
            _layout(_split_names("{}.txt"), ("msra",)),
            _layout(_split_names("{}.char.bmes"), ("msra", "MSRA")),
            _layout(("msra_train_bio.txt", "", "msra_test_bio.txt"), ("msra", "MSRA")),
        ),
        trap="copies of it cut sentences differently, so their numbers of rows differ",
    ),
    _ner(
        "ontonotes4", "News in Chinese: 4 types", (15724, 4301),
        (
            _layout(_split_names("{}.char.bmes"), _ONTONOTES),
            _layout(_split_names("{}.json"), _ONTONOTES, _JSON),
        ),
    ),
    NamedSet(
        "ner", "cluener", "News in Chinese: 10 types", "tag", "f1", 10748, 1343,
        (
            Layout("train.json", "dev.json", "test.json", ("cluener", "cluener_public"),
                   {"format": "json", "columns": {"text": "text", "label": "label"}, "convert": "cluener"}),
        ),
        options={"metric": "f1"}, leaderboard=Leaderboard("cluener_predict.json", "cluener", (1345,)),
        published=NER_FIGURES["cluener"],
    ),
    _ner(
        "wnut17", "New entities in English posts: 6 types", (3394, 1009),
        (
            _layout(
                ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"), ("wnut17", "wnut_17")
            ),
        ),
        hub="leondz/wnut_17",
    ),
    _ner(
        "conll2003", "News in English: 4 types", (14041, 3250),
        (
            _layout(("eng.train", "eng.testa", "eng.testb"), _CONLL2003),
            _layout(("train.txt", "valid.txt", "test.txt"), _CONLL2003),
        ),
        hub="eriktks/conll2003",
    ),
)  # fmt: skip
