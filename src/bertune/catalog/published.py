"""Figures that others have published for the named sets, in percent, and why they can or cannot be compared.

Figures of the programs that bertune replaces (bertorch, the ChineseBERT script, the GLUE notebook) stand here
too.
"""

from __future__ import annotations

from bertune.catalog.named_set import Published

_MODERNBERT = "ModernBERT paper (arXiv 2412.13663), table 5"
_OTHER_ENCODER = "another encoder than yours may be: compare at the same encoder only"
_TUNED = f"best of a search over rates and epochs; {_OTHER_ENCODER}"
_DEFAULTS = f"one run with run_glue's defaults; {_OTHER_ENCODER}"
_MINILM_V1 = "the uncased MiniLM of 2020, not all-MiniLM-L6-v2, which is trained further on pairs"
_FROM_MNLI = f"begins with a model of MNLI; {_TUNED}"


def _row(model: str, source: str, note: str, values: dict[str, tuple[str, float]]) -> dict[str, Published]:
    """Return the dev figures of one model by set."""
    return {
        name: Published(model, metric, value, "dev", source, note) for name, (metric, value) in values.items()
    }


def _accuracies(**values: float) -> dict[str, tuple[str, float]]:
    return {name: ("accuracy", value) for name, value in values.items()}


def _tasks(cola: float, sst2: float, qqp: float, mnli: float, qnli: float) -> dict[str, tuple[str, float]]:
    return {"cola": ("mcc", cola), **_accuracies(sst2=sst2, qqp=qqp, mnli=mnli, qnli=qnli)}


def _by_set(*rows: dict[str, Published]) -> dict[str, tuple[Published, ...]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row[name] for row in rows if name in row) for name in names}


_DISTILBERT = Published(
    "distilbert-base-uncased", "mcc", 51.39, "dev", "the GLUE notebook of transformers, epoch 5 of 5",
    "2e-5, batch 16, the best of 5 epochs on the rows that are reported; compare at the same encoder only",
)  # fmt: skip
GLUE_FIGURES: dict[str, tuple[Published, ...]] = _by_set(
    {"cola": _DISTILBERT},
    _row("BERT-base", _MODERNBERT, _TUNED,
         {**_tasks(59.0, 93.1, 91.4, 85.4, 91.6), **_accuracies(rte=78.2)}),
    _row("bert-base-cased", "README of the examples of transformers", _DEFAULTS,
         {**_tasks(56.5, 92.3, 90.7, 83.9, 90.7), **_accuracies(mrpc=84.1, rte=65.7),
          "stsb": ("pearson", 88.6)}),
    {"mnli-mm": Published("bert-base-cased", "accuracy", 84.1, "dev",
                          "README of the examples of transformers", _DEFAULTS)},
    _row("RoBERTa-base", "README of fairseq, and the ModernBERT paper", _TUNED,
         {**_tasks(63.6, 94.8, 91.9, 87.6, 92.8), **_accuracies(mrpc=90.2, rte=78.7)}),
    _row("DeBERTa-v3-base", _MODERNBERT, _TUNED,
         {**_tasks(69.2, 95.6, 92.4, 90.0, 94.0), **_accuracies(rte=83.8)}),
    _row("ModernBERT-base", _MODERNBERT, _TUNED, _tasks(65.1, 96.0, 92.1, 89.1, 93.9)),
    _row("ModernBERT-base", _MODERNBERT, _FROM_MNLI, _accuracies(rte=87.4)),
    _row("MiniLM-L12-H384", "README of microsoft/unilm", _MINILM_V1,
         {**_tasks(58.5, 93.0, 91.3, 85.7, 91.5), **_accuracies(rte=73.3)}),
    _row("MiniLM-L6-H384", "README of microsoft/unilm", _MINILM_V1,
         {**_tasks(47.5, 91.5, 90.6, 83.3, 90.5), **_accuracies(rte=68.8)}),
)  # fmt: skip
"""MRPC and STS-B of some papers are left out, since they do not say which metric their column is."""

_CLUE_README = "README of CLUEbenchmark/CLUE"
_CLUE_RUN = f"batch 16, 3 epochs, 2e-5, 128 tokens; {_OTHER_ENCODER}"
_PADDLE = "PaddleNLP, slm/examples/benchmark/clue"
_GRID = f"best of a grid, on the dev rows that are reported; {_OTHER_ENCODER}"
_WWM = "README of ymcui/Chinese-BERT-wwm"
_BEST_OF_10 = f"best of 10 runs; {_OTHER_ENCODER}"
_BERTORCH = "README of zejunwang1/bertorch"
_BERTORCH_RUN = (
    "bert-base-chinese, 2 GPUs of 32 rows, 5e-5, 128 tokens, 3 epochs, one run, the best of the dev rows: "
    "compare with bert-base-chinese at these settings"
)
_OCNLI_README = f"mean of 5 runs, all 50,000 training rows; {_OTHER_ENCODER}"
_OCNLI = "README of CLUEbenchmark/OCNLI"
_CHINESEBERT = "README of ShannonAI/ChineseBert"

CLUE_FIGURES: dict[str, tuple[Published, ...]] = _by_set(
    _row("bert-base-chinese", _BERTORCH, _BERTORCH_RUN,
         _accuracies(chnsenticorp=94.083, afqmc=74.305, tnews=56.990)),
    {"tnews": Published("ChineseBERT-base", "accuracy", 57.44, "dev",
                        "JunnYu/ChineseBert_pytorch, examples/tnews",
                        "3e-5, batch 32, 3 epochs, one run: compare with ChineseBERT-base only"),
     "cmnli": Published("bert-base-chinese, Sentence-BERT", "accuracy", 71.105, "dev", _BERTORCH,
                        f"two vectors compared, where this set reads both texts at once; {_BERTORCH_RUN}")},
    _row("BERT-base-Chinese", _CLUE_README, _CLUE_RUN,
         _accuracies(tnews=56.09, afqmc=74.16, cmnli=79.47, iflytek=60.37)),
    _row("BERT-base-Chinese", _WWM, _BEST_OF_10, _accuracies(lcqmc=89.4, chnsenticorp=94.7)),
    _row("BERT-base-Chinese", _PADDLE, _GRID,
         _accuracies(tnews=57.13, afqmc=74.63, ocnli=75.22, cmnli=80.97)),
    _row("BERT-base-Chinese", _OCNLI, _OCNLI_README, _accuracies(ocnli=74.5)),
    _row("RoBERTa-wwm-ext", _CLUE_README, _CLUE_RUN, _accuracies(tnews=57.51, afqmc=74.30, cmnli=80.70)),
    _row("RoBERTa-wwm-ext", _PADDLE, _GRID,
         _accuracies(tnews=58.08, afqmc=74.60, ocnli=76.92, cmnli=81.11)),
    _row("RoBERTa-wwm-ext", _WWM, _BEST_OF_10, _accuracies(lcqmc=89.0, chnsenticorp=95.0)),
    _row("MacBERT-base", "README of ymcui/MacBERT", _BEST_OF_10, _accuracies(lcqmc=89.5, chnsenticorp=95.2)),
    _row("ChineseBERT-base", _CHINESEBERT, _OTHER_ENCODER,
         _accuracies(tnews=58.64, lcqmc=89.8, chnsenticorp=95.6)),
    _row("ERNIE-3.0-base", _PADDLE, _GRID, _accuracies(tnews=58.26, afqmc=75.93, ocnli=80.10, cmnli=83.02)),
    _row("ERNIE-3.0-medium (6 layers of 768)", _PADDLE, _GRID,
         _accuracies(tnews=57.00, afqmc=73.37, ocnli=76.88, cmnli=80.64)),
    _row("RBT6", _PADDLE, _GRID, _accuracies(tnews=56.82, afqmc=73.45, ocnli=73.32, cmnli=79.36)),
    {"cluewsc": Published("BERT-base-Chinese", "accuracy", 62.0, "test", _CLUE_README, _CLUE_RUN),
     "csl": Published("BERT-base-Chinese", "accuracy", 80.36, "test", _CLUE_README, _CLUE_RUN)},
)  # fmt: skip

_FLAT = "table of the FLAT paper"
_ADASEQ = "AdaSeq, examples/bert_crf"
_RANER = "StructBERT, trained further for entities: compare with that encoder only"


def _test_f1(model: str, source: str, note: str, **values: float) -> dict[str, Published]:
    return {name: Published(model, "f1", value, "test", source, note) for name, value in values.items()}


def _bertorch_f1(head: str, **values: float) -> dict[str, Published]:
    other = "; its decoder forgives some broken tags, and entities behind the cut are not counted"
    return {
        name: Published(f"bert-base-chinese, {head}", "f1", value, "dev", _BERTORCH, _BERTORCH_RUN + other)
        for name, value in values.items()
    }


NER_FIGURES: dict[str, tuple[Published, ...]] = _by_set(
    _bertorch_f1("linear", msra=94.179, resume=95.643, ontonotes4=80.206, weibo=70.588),
    _bertorch_f1("CRF", msra=94.265, resume=95.818, ontonotes4=80.257, weibo=72.215),
    _test_f1("BERT-base, CRF", _FLAT, _OTHER_ENCODER,
             msra=94.95, ontonotes4=80.14, resume=95.53, weibo=68.20),
    _test_f1("BERT-base, FLAT", _FLAT, "a lexicon beside the encoder",
             msra=96.09, ontonotes4=81.82, resume=95.86, weibo=68.55),
    _test_f1("BERT-base", _CHINESEBERT, _OTHER_ENCODER, ontonotes4=80.87, weibo=67.33),
    _test_f1("ChineseBERT-base", _CHINESEBERT, _OTHER_ENCODER, ontonotes4=81.65, weibo=69.02),
    _test_f1("BERT-base, CRF", "syuoni/eznlp, 50 epochs", _OTHER_ENCODER,
             msra=95.92, weibo=68.79, resume=95.68, ontonotes4=82.43),
    _test_f1("StructBERT-base, CRF", _ADASEQ, _RANER,
             msra=96.69, ontonotes4=83.04, resume=96.87, weibo=72.77),
    _test_f1("RoBERTa-base", "syuoni/eznlp, 50 epochs", _OTHER_ENCODER, conll2003=92.59),
    _test_f1("XLM-R-large, CRF", _ADASEQ, _OTHER_ENCODER, conll2003=93.35, wnut17=59.69),
    {"cluener": Published("BERT-base-Chinese", "f1", 78.82, "test",
                          "README of CLUEbenchmark/CLUENER2020", _OTHER_ENCODER)},
)  # fmt: skip

_SIMCSE = "unsupervised, 150,000 sentences of the Chinese Wikipedia: not trained on this set"
_BATCHNEG = "trained on LCQMC, PAWS-X and PKU, not on this set"
_MEASURED = "measured with sentence-transformers 6.2, fp32"
_UNTRAINED = "not trained on this set: what training must beat"


def _cosent(value: float) -> Published:
    return Published("BERT-base, CoSENT", "spearman", value, "test", "shibing624/text2vec", _OTHER_ENCODER)


STS_FIGURES: dict[str, tuple[Published, ...]] = {
    "stsb": (
        Published("all-MiniLM-L6-v2", "spearman", 86.72, "dev", _MEASURED, _UNTRAINED),
        Published("all-MiniLM-L6-v2", "spearman", 82.03, "test", _MEASURED, _UNTRAINED),
    ),
    "stsb-zh": (
        Published("uer/chinese_roberta_L-6_H-128, SimCSE", "spearman", 60.48, "dev",
                  _BERTORCH, _SIMCSE),
        Published("bertorch, in-batch negatives", "spearman", 69.50, "dev", _BERTORCH, _BATCHNEG),
        Published("bert-base, supervised SimCSE", "spearman", 80.16, "dev",
                  "vdogmcgee/SimCSE-Chinese-Pytorch", _OTHER_ENCODER),
        _cosent(79.27),
        Published("ernie-3.0-base, CoSENT", "spearman", 81.53, "test", "shibing624/text2vec", _OTHER_ENCODER),
    ),
    "lcqmc": (
        Published("bert-base-chinese, Sentence-BERT", "accuracy", 86.730, "dev", _BERTORCH,
                  f"accuracy of options.loss=softmax, not the default here; {_BERTORCH_RUN}"),
        _cosent(78.69),
    ),
    "bq": (_cosent(72.38),),
    "atec": (_cosent(49.74),),
}  # fmt: skip
