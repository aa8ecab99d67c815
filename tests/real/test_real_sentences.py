"""Known figures of a published model, and pairs that are learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.real.test_real import chinese, data

import bertune
from bertune.kernels.precision import has_fast_int8

pytestmark = pytest.mark.real


def test_minilm_has_its_published_figure(tmp_path):
    """STS-B test: Spearman 82.03 and Pearson 82.74 with sentence-transformers 6.2 in fp32."""
    cells = [
        line.split("\t")
        for line in Path(data("glue/STS-B/original/sts-test.tsv")).read_text(encoding="utf-8").splitlines()
    ]
    file = tmp_path / "test.tsv"
    file.write_text("".join(f"{c[5]}\t{c[6]}\t{c[4]}\n" for c in cells), encoding="utf-8")
    for precision, near in (
        ("fp32", 5e-4),
        ("auto", 5e-4),
        *([("int8", 2e-3)] if has_fast_int8(torch.device("cpu")) else []),
    ):
        evaluation = bertune.evaluate(
            "minilm", str(file), ["data.columns=[text,text_b,label]"], precision=precision
        )
        scores = evaluation.scores
        assert scores.values["spearman"] == pytest.approx(0.8203, abs=near)
        assert scores.values["pearson"] == pytest.approx(0.8274, abs=near)
        assert evaluation.num_truncated_rows == 0


@pytest.mark.parametrize(
    ("task", "settings", "least"),
    [
        (
            "match",
            ["data.train={sts}/sts-b-train.txt", "data.columns=[text,text_b,label]", "data.limit=960"],
            0.70,
        ),
        (
            "embed",
            ["data.train={wiki}", "data.columns=[text,text_b,label]", "data.limit=640", "options.margin=0"],
            0.68,
        ),
    ],
)
def test_chinese_pairs_are_learnt(task, settings, least, tmp_path):
    """m3e-small gives sentence vectors already (0.79 with its own mean pooling): training keeps it good."""
    sts = Path(data("sts-b-zh/sts-b-dev.txt")).parent
    given = [s.format(sts=sts, wiki=data("raw-zh/wiki.zh-cn.txt")) for s in settings]
    common = [
        f"data.dev={sts / 'sts-b-dev.txt'}",
        f"model={chinese()}",
        "train.epochs=1",
        "train.learning_rate=3e-5",
        f"out={tmp_path / 'out'}",
    ]
    found = bertune.train(task, [*given, *common], quiet=True)
    assert found.scores["dev"].main_metric == "spearman"
    assert found.scores["dev"].main_value > least
