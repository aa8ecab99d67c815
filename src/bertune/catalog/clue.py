"""The tasks of CLUE that are classification, and two other Chinese sets beside them.

Sources: the README of CLUEbenchmark/CLUE, its baselines/models/classifier_utils.py (the order of labels, how
CSL and CLUEWSC become texts), its note on submissions of 2021-09-04
(中文任务基准测评 CLUE benchmark 任务提交说明).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertune.catalog.named_set import Layout, Leaderboard, NamedSet, remote_layout
from bertune.catalog.published import CLUE_FIGURES

ZERO_ONE = ("0", "1")
NLI = ("contradiction", "entailment", "neutral")
TNEWS_NAMES = (
    "news_story", "news_culture", "news_entertainment", "news_sports", "news_finance", "news_house",
    "news_car", "news_edu", "news_tech", "news_military", "news_travel", "news_world", "news_stock",
    "news_agriculture", "news_game",
)  # fmt: skip
TNEWS_IDS = tuple(str(number) for number in range(100, 117) if number not in {105, 111})
IFLYTEK_IDS = tuple(map(str, range(119)))
_PAIR = {"text": "sentence1", "text_b": "sentence2", "label": "label"}
_PAIR_COLUMNS = ["text", "text_b", "label"]
_SINGLE = {"text": "sentence", "label": "label"}


def _json(columns: Any, labels: Sequence[str], **more: Any) -> dict[str, Any]:
    return {"format": "json", "columns": columns, "labels": list(labels), **more}


def _tsv(columns: Any, labels: Sequence[str], **more: Any) -> dict[str, Any]:
    return {"format": "tsv", "quoting": "none", "columns": columns, "labels": list(labels), **more}


def _official(name: str, data: dict[str, Any], train: str = "train.json") -> Layout:
    """Return the form of CLUE's own archive, such as tnews_public.zip."""
    return Layout(train, "dev.json", "test.json", (f"{name}_public", name), data)


def _remote(config: str, data: dict[str, Any], prefix: str) -> Layout:
    reading = {name: value for name, value in data.items() if name != "format"}
    return remote_layout(f"{prefix}/{config}", reading)


def _clue(  # noqa: PLR0913  (a row of a table)
    name: str,
    title: str,
    rows: tuple[int, int, int],
    labels: Sequence[str],
    data: dict[str, Any],
    *others: Layout,
    trains: Sequence[str] = ("train.json",),
    remote: dict[str, Any] | None = None,
    config: str = "",
    leaderboard: Leaderboard | None = None,
    trap: str = "",
) -> NamedSet:
    return NamedSet(
        "clue", name, title, "classify", "accuracy", rows[0], rows[1],
        (*(_official(config or name, data, train) for train in trains), *others),
        hub=_remote(config or name, remote or data, "hub:clue/clue"),
        modelscope=_remote(config or name, remote or data, "modelscope:clue"),
        labels=tuple(labels), options={"metric": "accuracy"},
        leaderboard=leaderboard or Leaderboard(f"{name}_predict.json", "clue", (rows[2],), tuple(labels)),
        published=CLUE_FIGURES.get(name, ()), trap=trap,
    )  # fmt: skip


_CHNSENTI = ("ChnSentiCorp", "chnsenticorp", "chnsenti")
_SENTIMENT = ("negative", "positive")
_CHNSENTI_HEADER = _tsv({"text": "text_a", "label": "label"}, ZERO_ONE)
_LCQMC = _tsv(_PAIR_COLUMNS, ZERO_ONE)

CLUE: tuple[NamedSet, ...] = (
    _clue(
        "tnews", "Topic of a headline, 15 of them", (53360, 10000, 10000), TNEWS_NAMES,
        _json({"text": "sentence", "label": "label_desc"}, TNEWS_NAMES),
        Layout(
            "train.tsv", "dev.tsv", "", ("tnews",), _tsv(["text", "label"], TNEWS_NAMES),
        ),
        remote=_json(_SINGLE, TNEWS_IDS),
        leaderboard=Leaderboard(
            "tnews11_predict.json", "clue", (10000,), TNEWS_IDS, TNEWS_NAMES, "tnews10_predict.json"
        ),
        trap="about 11 % of its dev texts are training rows too",
    ),
    _clue(
        "afqmc", "Do two questions about payment ask the same?", (34334, 4316, 3861), ZERO_ONE,
        _json(_PAIR, ZERO_ONE),
        Layout("train.txt", "dev.txt", "test.txt", ("afqmc",), _tsv(_PAIR_COLUMNS, ZERO_ONE),
               test_data=_tsv(["text", "text_b"], ZERO_ONE)),
        trap="69 % of the dev rows are 0: an accuracy of 69 is that of the largest class",
    ),
    _clue(
        "ocnli", "Does a sentence follow from another? Written in Chinese", (50437, 2950, 3000), NLI,
        _json(_PAIR, NLI, drop_labels=["-"]),
        leaderboard=Leaderboard("ocnli_50k_predict.json", "clue", (3000,), NLI),
        trains=("train.50k.json", "train.json", "train.30k.json", "train.10k.json", "train.3k.json"),
        trap="rows whose label is - have no majority and are left out",
    ),
    _clue(
        "cmnli", "Does a sentence follow from another? Translated", (391782, 12426, 13880), NLI,
        _json(_PAIR, NLI, drop_labels=["-"]),
        trap="rows whose label is - have no majority and are left out",
    ),
    _clue(
        "iflytek", "Kind of an app by its description, 119 of them", (12133, 2599, 2600), IFLYTEK_IDS,
        _json(_SINGLE, IFLYTEK_IDS),
    ),
    _clue(
        "csl", "Are these the keywords of an abstract?", (20000, 3000, 3000), ZERO_ONE,
        _json({"text": "text", "text_b": "text_b", "label": "label"}, ZERO_ONE, convert="csl"),
    ),
    _clue(
        "cluewsc", "Does a pronoun mean this noun?", (1244, 304, 2574), ("true", "false"),
        _json({"text": "text", "label": "label"}, ("true", "false"), convert="cluewsc"), config="cluewsc2020",
        leaderboard=Leaderboard(
            "cluewsc11_predict.json", "clue", (2574, 290), ("true", "false"), (), "cluewsc10_predict.json"
        ),
    ),
    NamedSet(
        "clue", "chnsenticorp", "Sentiment of a review", "classify", "accuracy", 9600, 1200,
        (
            Layout("train.tsv", "dev.tsv", "test.tsv", _CHNSENTI, _CHNSENTI_HEADER, first_line="text_a"),
            Layout(
                "train.tsv", "dev.tsv", "test.tsv", _CHNSENTI, _tsv(["text", "label"], _SENTIMENT),
                test_data=_tsv({"text": "text_a"}, _SENTIMENT),
            ),
        ),
        hub=remote_layout("hub:lansinuote/ChnSentiCorp", {"columns": {"text": "text", "label": "label"}}),
        labels=_SENTIMENT, options={"metric": "accuracy"}, published=CLUE_FIGURES["chnsenticorp"],
        trap="28 % of its dev texts are training rows too",
    ),
    NamedSet(
        "clue", "lcqmc", "Do two questions mean the same?", "classify", "accuracy", 238766, 8802,
        tuple(
            Layout(f"train.{end}", f"dev.{end}", f"test.{end}", ("lcqmc",), _LCQMC, test_is_labelled=True)
            for end in ("txt", "tsv")
        ),
        hub=remote_layout(
            "hub:C-MTEB/LCQMC", {"columns": {**_PAIR, "label": "score"}}, test_is_labelled=True
        ),
        labels=ZERO_ONE, options={"metric": "accuracy"}, published=CLUE_FIGURES["lcqmc"],
    ),
)  # fmt: skip
