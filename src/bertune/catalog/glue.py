"""The tasks of GLUE: files as its download script leaves them, labels in its order, the metric that decides.

Sources: nyu-mll/GLUE-baselines (download_glue_data.py, src/main.py), the data set card of nyu-mll/glue.
"""

from __future__ import annotations

from typing import Any

from bertune.catalog.named_set import Layout, Leaderboard, NamedSet, remote_layout
from bertune.catalog.published import GLUE_FIGURES

ZERO_ONE = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")
_PAIR = {"text": "sentence1", "text_b": "sentence2"}
_COLA_TRAIN = ["_", "label", "_", "text"]


def _reading(columns: Any, labels: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """Return how a file of GLUE is read: quotation marks are text."""
    reading = {"format": "tsv", "quoting": "none", "columns": columns, **more}
    return {**reading, "labels": list(labels)} if labels else reading


def _remote(
    prefix: str, config: str, splits: tuple[str, str, str], texts: Any, labels: tuple[str, ...]
) -> Layout:
    data = {"columns": {**texts, "label": "label"}, **({"labels": list(labels)} if labels else {})}
    return remote_layout(f"{prefix}/{config}", data, splits)


def _classify(  # noqa: PLR0913  (a row of a table)
    name: str,
    title: str,
    rows: tuple[int, int, int],
    folders: tuple[str, ...],
    texts: dict[str, str],
    labels: tuple[str, ...],
    file_name: str,
    *,
    label: str = "label",
    metric: str = "accuracy",
    hub_labels: tuple[str, ...] = (),
    hub: str = "",
    suffix: str = "",
    layouts: tuple[Layout, ...] = (),
    trap: str = "",
    **more: Any,
) -> NamedSet:
    """Return a task of GLUE with labels. `suffix` tells dev and test of MNLI's two halves."""
    data = _reading({**texts, "label": label}, labels, **more)
    usual = Layout("train.tsv", f"dev{suffix}.tsv", f"test{suffix}.tsv", folders, data)
    splits = ("train", f"validation{suffix}", f"test{suffix}")
    remote = ({"text": "sentence"} if len(texts) == 1 else texts), hub_labels or labels
    return NamedSet(
        "glue", name, title, "classify", metric, rows[0], rows[1], layouts or (usual,),
        hub=_remote("hub:nyu-mll/glue", hub or name, splits, *remote),
        modelscope=_remote("modelscope:glue", hub or name, splits, *remote),
        labels=labels, options={"metric": metric},
        leaderboard=Leaderboard(file_name, "glue", (rows[2],), labels),
        published=GLUE_FIGURES.get(name, ()), trap=trap,
    )  # fmt: skip


_COLA = Layout(
    "train.tsv", "dev.tsv", "test.tsv", ("CoLA",), _reading(_COLA_TRAIN, ZERO_ONE),
    test_data=_reading({"text": "sentence"}, ZERO_ONE),
)  # fmt: skip
_MRPC_TEXTS = {"text": "#1 String", "text_b": "#2 String"}
_MRPC_DATA = _reading({**_MRPC_TEXTS, "label": "Quality"}, ZERO_ONE)
_MRPC = (
    Layout("train.tsv", "dev.tsv", "test.tsv", ("MRPC",), _MRPC_DATA, scored_test="msr_paraphrase_test.txt"),
    Layout("train.tsv", "dev.tsv", "msr_paraphrase_test.txt", ("MRPC",), _MRPC_DATA),
    Layout(
        "msr_paraphrase_train.txt", "", "msr_paraphrase_test.txt", ("MRPC", "MSRParaphraseCorpus"), _MRPC_DATA
    ),
)
_STSB_DATA = _reading({**_PAIR, "label": "score"}, ())
STSB_ORIGINAL = _reading(["_", "_", "_", "_", "label", "text", "text_b", "..."], (), delimiter="tab")
"""The files of its authors have no header, and two more columns on some lines."""
_STSB_REMOTE = ("train", "validation", "test"), _PAIR, ()

GLUE: tuple[NamedSet, ...] = (
    _classify(
        "cola", "Is the sentence good English?", (8551, 1043, 1063), ("CoLA",), {"text": "sentence"},
        ZERO_ONE, "CoLA.tsv", metric="mcc", hub_labels=("unacceptable", "acceptable"), layouts=(_COLA,),
    ),
    _classify(
        "sst2", "Sentiment of a sentence about a film", (67349, 872, 1821), ("SST-2", "SST2"),
        {"text": "sentence"}, ZERO_ONE, "SST-2.tsv", hub_labels=("negative", "positive"),
    ),
    _classify(
        "mrpc", "Do two sentences of the news mean the same?", (3668, 408, 1725), ("MRPC",), _MRPC_TEXTS,
        ZERO_ONE, "MRPC.tsv", hub_labels=("not_equivalent", "equivalent"), layouts=_MRPC,
    ),
    _classify(
        "qqp", "Do two questions of Quora ask the same?", (363846, 40430, 390965), ("QQP", "QQP-clean"),
        {"text": "question1", "text_b": "question2"}, ZERO_ONE, "QQP.tsv", label="is_duplicate",
        hub_labels=("not_duplicate", "duplicate"), bad_rows="skip",
        trap="some lines of its train.tsv lack columns: they are left out and counted",
    ),
    NamedSet(
        "glue", "stsb", "How similar are two sentences, from 0 to 5?", "regress", "pearson", 5749, 1500,
        (
            Layout(
                "train.tsv", "dev.tsv", "test.tsv", ("STS-B", "STSB"), _STSB_DATA,
                scored_test="original/sts-test.tsv", scored_test_data=STSB_ORIGINAL,
            ),
        ),
        hub=_remote("hub:nyu-mll/glue", "stsb", *_STSB_REMOTE),
        modelscope=_remote("modelscope:glue", "stsb", *_STSB_REMOTE),
        options={"metric": "pearson"}, leaderboard=Leaderboard("STS-B.tsv", "glue", (1379,)),
        published=GLUE_FIGURES["stsb"],
    ),
    _classify(
        "mnli", "Does a sentence follow from another? Dev rows of the same genres", (392702, 9815, 9796),
        ("MNLI",), _PAIR, NLI, "MNLI-m.tsv", label="gold_label", suffix="_matched", drop_labels=["-"],
    ),
    _classify(
        "mnli-mm", "MNLI with dev rows of other genres", (392702, 9832, 9847), ("MNLI",), _PAIR, NLI,
        "MNLI-mm.tsv", label="gold_label", suffix="_mismatched", hub="mnli", drop_labels=["-"],
        trap="trains on the rows of glue:mnli; a model of that can be evaluated on it without training again",
    ),
    _classify(
        "qnli", "Does a sentence answer a question?", (104743, 5463, 5463), ("QNLI", "QNLIv2"),
        {"text": "question", "text_b": "sentence"}, ENTAILMENT, "QNLI.tsv",
    ),
    _classify(
        "rte", "Does a sentence follow from a text?", (2490, 277, 3000), ("RTE",), _PAIR, ENTAILMENT,
        "RTE.tsv",
    ),
    _classify(
        "wnli", "Is a pronoun replaced rightly?", (635, 71, 146), ("WNLI",), _PAIR, ZERO_ONE, "WNLI.tsv",
        hub_labels=("not_entailment", "entailment"),
        trap="train and dev share first sentences with opposite labels: an accuracy near or below that of "
        "the largest class (56.34) is normal, and more training makes it worse",
    ),
    NamedSet(
        "glue", "ax", "GLUE's diagnostic pairs, for a model of glue:mnli", "classify", "mcc", 0, 0,
        tuple(
            Layout("", "", file, ("diagnostic", "AX"), _reading({**_PAIR, "label": "label"}, NLI))
            for file in ("diagnostic.tsv", "AX.tsv")
        ),
        hub=Layout("", "", "hub:nyu-mll/glue/ax:test", data={"columns": {**_PAIR, "label": "label"}}),
        labels=NLI, leaderboard=Leaderboard("AX.tsv", "glue", (1104,), NLI),
        trap="it has no training rows: train glue:mnli, and predict this with its model",
    ),
)  # fmt: skip
