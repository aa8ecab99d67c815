"""Sets of pairs for sentence vectors: each text has its own vector, and the cosine of two is the score."""

from __future__ import annotations

from typing import Any

from bertune.catalog.glue import STSB_ORIGINAL
from bertune.catalog.named_set import Layout, NamedSet, remote_layout
from bertune.catalog.published import STS_FIGURES

_COLUMNS = ["text", "text_b", "label"]
_HEADER = {"text": "sentence1", "text_b": "sentence2", "label": "score"}


def _tsv(columns: Any = _COLUMNS) -> dict[str, Any]:
    return {"format": "tsv", "quoting": "none", "columns": columns}


def _three(pattern: str, *folders: str, data: dict[str, Any] | None = None) -> Layout:
    train, dev, test = (pattern.format(split) for split in ("train", "dev", "test"))
    return Layout(train, dev, test, folders, data or _tsv(), test_is_labelled=True)


def _on_hub(name: str) -> Layout:
    return remote_layout(f"hub:{name}", {"columns": _HEADER}, test_is_labelled=True)


def _pairs(
    name: str, title: str, rows: tuple[int, int], layouts: tuple[Layout, ...], hub: str, trap: str = ""
) -> NamedSet:
    """Return a set of pairs labelled 0 or 1, ranked by their cosine as STS benchmarks do."""
    return NamedSet(
        "sts", name, title, "match", "average_precision", *rows, layouts, hub=_on_hub(hub), labels=("0", "1"),
        options={"loss": "cosent"}, published=STS_FIGURES.get(name, ()), trap=trap,
    )  # fmt: skip


_COSENT = {"loss": "cosent", "metric": "spearman"}

STS: tuple[NamedSet, ...] = (
    NamedSet(
        "sts", "stsb", "How similar are two sentences? English", "match", "spearman", 5749, 1500,
        (
            Layout(
                "train.tsv", "dev.tsv", "test.tsv", ("STS-B", "STSB"), _tsv(_HEADER),
                scored_test="original/sts-test.tsv", scored_test_data=STSB_ORIGINAL,
            ),
            _three("sts-{}.csv", "stsbenchmark", data=STSB_ORIGINAL),
        ),
        hub=_on_hub("mteb/stsbenchmark-sts"), options=_COSENT, published=STS_FIGURES["stsb"],
    ),
    NamedSet(
        "sts", "stsb-zh", "How similar are two sentences? Chinese", "match", "spearman", 5231, 1458,
        (
            _three("sts-b-{}.txt", "sts-b-zh", "STS-B", "Chinese-STS-B"),
            _three("sts-b-{}.tsv", "sts-b-zh", "STS-B", "Chinese-STS-B"),
        ),
        hub=_on_hub("C-MTEB/STSB"), options=_COSENT, published=STS_FIGURES["stsb-zh"],
    ),
    _pairs(
        "afqmc", "Do two questions about payment ask the same?", (34334, 4316),
        (
            Layout("train.txt", "dev.txt", "", ("afqmc",), _tsv()),
            Layout("train.json", "dev.json", "", ("afqmc_public", "afqmc"),
                   {"format": "json", "columns": {**_HEADER, "label": "label"}}),
        ),
        "C-MTEB/AFQMC",
    ),
    _pairs(
        "lcqmc", "Do two questions mean the same?", (238766, 8802),
        (_three("{}.txt", "lcqmc"), _three("{}.tsv", "lcqmc")), "C-MTEB/LCQMC",
    ),
    _pairs(
        "bq", "Do two questions to a bank ask the same?", (100000, 10000),
        (_three("{}.txt", "bq", "bq_corpus"), _three("{}.tsv", "bq", "bq_corpus")), "C-MTEB/BQ",
    ),
    _pairs(
        "atec", "Do two questions about payment ask the same? No dev file", (39346, 0),
        (
            Layout("atec_nlp_sim_train.csv", "", "", ("atec",),
                   {**_tsv(["_", *_COLUMNS]), "delimiter": "tab"}),
            _three("{}.txt", "atec"),
        ),
        "C-MTEB/ATEC", trap="its form of 2018 has no dev file: a part of the training rows becomes it",
    ),
)  # fmt: skip
