"""A few rows of every named set, in each form in which it is passed on, as files of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BOM = "\ufeff"


def table(*rows: str, header: str = "") -> str:
    """Lines of a table; "|" stands for a tab."""
    return "".join(f"{line}\n" for line in [header, *rows] if line).replace("|", "\t")


def json_lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def conll(*sentences: str, separator: str = " ") -> str:
    """Sentences such as "好/O 大/B-LOC" as a word a line."""
    return "\n".join(
        "".join(word.replace("/", separator) + "\n" for word in sentence.split()) for sentence in sentences
    )


def _pairs(header: str, labels: tuple[str, str], template: str) -> dict[str, str]:
    train = table(*(template.format(n=n, label=labels[n % 2]) for n in range(4)), header=header)
    return {"train.tsv": train}


_MNLI_HEADER = (
    "index|promptID|pairID|genre|sentence1_parse|sentence2_parse|sentence1|sentence2|label1|gold_label"
)
_MNLI_ROW = '{n}|p|p|fiction|x|x|the dog {n} "is big|the cat {n}|{label}|{label}'
_STSB_HEADER = "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2|score"
_STSB_ROW = '{n}|main|f|2012|{n}|none|none|a "dog {n}|a cat {n}|{label}'
_ORIGINAL = "main|f|2012|{n}|{label}|a dog {n}|a cat {n}"


def _numbered(template: str, labels: tuple[str, ...], count: int = 4) -> list[str]:
    return [template.format(n=n, label=labels[n % len(labels)]) for n in range(count)]


def _glue(header: str, template: str, labels: tuple[str, ...], test_header: str, test: str) -> dict[str, str]:
    rows = _numbered(template, labels, 6)
    return {
        "train.tsv": table(*rows[:4], header=header),
        "dev.tsv": table(*rows[4:], header=header),
        "test.tsv": table(*_numbered(test, labels, 3), header=test_header),
    }


_MNLI = {
    "train.tsv": table(
        *_numbered(_MNLI_ROW, ("neutral", "entailment", "contradiction", "-")), header=_MNLI_HEADER
    ),
    **{
        f"dev_{half}.tsv": table(*_numbered(_MNLI_ROW, ("entailment", "neutral")), header=_MNLI_HEADER)
        for half in ("matched", "mismatched")
    },
    **{
        f"test_{half}.tsv": table("0|p|p|f|x|x|the dog|the cat", header=_MNLI_HEADER.rsplit("|", 2)[0])
        for half in ("matched", "mismatched")
    },
}
_NLI_JSON = {
    "dev.json": json_lines(
        *(
            {"sentence1": f"好{n}", "sentence2": "坏", "label": label, "id": n}
            for n, label in enumerate(("entailment", "-", "neutral", "contradiction"))
        )
    ),
    "test.json": json_lines({"id": 0, "sentence1": "好", "sentence2": "坏"}),
}
_BMES = {
    f"{split}.{{kind}}.bmes": conll("大/B-LOC 地/E-LOC 好/O", f"{split[0]}/O 你/S-PER")
    for split in ("train", "dev", "test")
}
_TAG_JSON = {
    f"{split}.json": json_lines(
        {"text": ["大", "地", split[0]], "label": ["B-LOC", "I-LOC", "O"]},
        {"text": ["你", split[0]], "label": ["B-PER", "O"]},
    )
    for split in ("train", "dev", "test")
}
_BIO = conll("大/B-LOC 地/I-LOC 好/O", "你/B-PER 不/O", separator="\t")
_PAIR_ROWS = _numbered("好{n}|坏{n}|{label}", ("0", "1"), 6)
_THREE_PAIRS = {
    "train": table(*_PAIR_ROWS[:4]),
    "dev": table(*_PAIR_ROWS[4:]),
    "test": table(*_PAIR_ROWS[:2]),
}
_SPANS = {"span1_index": 0, "span1_text": "大地", "span2_index": 4, "span2_text": "你"}
_WSC = [
    {"idx": n, "text": "大地不好你", "target": _SPANS, "label": ("true", "false")[n % 2]} for n in range(4)
]
_CSL = [{"id": n, "abst": f"好{n}", "keyword": ["大", "小"], "label": str(n % 2)} for n in range(4)]
_NER_ROWS = [{"text": f"大地好{n}", "label": {"address": {"大地": [[0, 1]]}}} for n in range(3)]

FORMS: list[tuple[str, str, dict[str, str], tuple[int, int]]] = [
    (
        "glue:cola",
        "CoLA",
        _glue("", 'gj04|{label}||the "dog {n}', ("0", "1"), "index|sentence", "{n}|a dog {n}"),
        (4, 2),
    ),
    (
        "glue:sst2",
        "SST-2",
        _glue("sentence|label", 'a "dog {n}|{label}', ("0", "1"), "index|sentence", "{n}|a"),
        (4, 2),
    ),
    (
        "glue:mrpc",
        "glue_data/MRPC",
        {
            **{
                name: BOM + text
                for name, text in _glue(
                    "Quality|#1 ID|#2 ID|#1 String|#2 String",
                    '{label}|1|2|a "dog {n}|" a cat {n}',
                    ("1", "0"),
                    "",
                    "x",
                ).items()
            },
            "test.tsv": table("0|1|2|a dog|a cat", header="index|#1 ID|#2 ID|#1 String|#2 String"),
        },
        (4, 2),
    ),
    (
        "glue:mrpc",
        "MRPC",
        {
            f"msr_paraphrase_{split}.txt": BOM
            + table(
                *_numbered('{label}|1|2|a "dog {n}|" a cat {n}', ("1", "0"), 30),
                header="Quality|#1 ID|#2 ID|#1 String|#2 String",
            )
            for split in ("train", "test")
        },
        (27, 3),
    ),
    (
        "glue:qqp",
        "QQP",
        {
            "train.tsv": table(
                *_numbered("{n}|1|2|a dog {n}|a cat {n}|{label}", ("0", "1")),
                "5|1|2|a broken line",
                header="id|qid1|qid2|question1|question2|is_duplicate",
            ),
            "dev.tsv": table(
                "9|1|2|a|b|1", "8|1|2|a|c|0", header="id|qid1|qid2|question1|question2|is_duplicate"
            ),
            "test.tsv": table("0|a|b", header="id|question1|question2"),
        },
        (4, 2),
    ),
    (
        "glue:stsb",
        "STS-B",
        _glue(
            _STSB_HEADER, _STSB_ROW, ("0.000", "4.500"), _STSB_HEADER.rsplit("|", 1)[0], "0|m|f|y|0|n|n|a|b"
        ),
        (4, 2),
    ),
    ("glue:mnli", "MNLI", _MNLI, (3, 4)),
    ("glue:mnli-mm", "MNLI", _MNLI, (3, 4)),
    (
        "glue:qnli",
        "QNLI",
        _glue(
            "index|question|sentence|label",
            "{n}|a dog {n}?|a cat {n}|{label}",
            ("entailment", "not_entailment"),
            "index|question|sentence",
            "{n}|a?|b",
        ),
        (4, 2),
    ),
    (
        "glue:rte",
        "RTE",
        _glue(
            "index|sentence1|sentence2|label",
            "{n}|a dog {n}|a cat {n}|{label}",
            ("entailment", "not_entailment"),
            "index|sentence1|sentence2",
            "{n}|a|b",
        ),
        (4, 2),
    ),
    (
        "glue:wnli",
        "WNLI",
        _glue(
            "index|sentence1|sentence2|label",
            "{n}|a dog {n}|a cat {n}|{label}",
            ("0", "1"),
            "index|sentence1|sentence2",
            "{n}|a|b",
        ),
        (4, 2),
    ),
    (
        "clue:tnews",
        "tnews_public",
        {
            "train.json": json_lines(
                *(
                    {"label": "102", "label_desc": "news_entertainment", "sentence": f"好{n}", "keywords": ""}
                    for n in range(4)
                ),
                {"label": "100", "label_desc": "news_story", "sentence": "大"},
            ),
            "dev.json": json_lines(
                {"label": "102", "label_desc": "news_entertainment", "sentence": "坏"},
                {"label": "116", "label_desc": "news_game", "sentence": "小"},
            ),
            "test.json": json_lines({"id": 0, "sentence": "人"}),
        },
        (5, 2),
    ),
    (
        "clue:tnews",
        "tnews",
        {"train.tsv": table("好|news_tech", "坏|news_game"), "dev.tsv": table("大|news_car", "小|news_tech")},
        (2, 2),
    ),
    (
        "clue:afqmc",
        "afqmc_public",
        {
            "train.json": json_lines(
                *({"sentence1": f"好{n}", "sentence2": "坏", "label": str(n % 2)} for n in range(4))
            ),
            "dev.json": json_lines(
                *({"sentence1": f"大{n}", "sentence2": "坏", "label": str(n % 2)} for n in range(2))
            ),
            "test.json": json_lines({"id": 0, "sentence1": "好", "sentence2": "坏"}),
        },
        (4, 2),
    ),
    (
        "clue:afqmc",
        "AFQMC",
        {"train.txt": _THREE_PAIRS["train"], "dev.txt": _THREE_PAIRS["dev"], "test.txt": table("好|坏")},
        (4, 2),
    ),
    ("clue:ocnli", "ocnli_public", {"train.50k.json": _NLI_JSON["dev.json"], **_NLI_JSON}, (3, 3)),
    ("clue:cmnli", "cmnli_public", {"train.json": _NLI_JSON["dev.json"], **_NLI_JSON}, (3, 3)),
    (
        "clue:iflytek",
        "iflytek_public",
        {
            "train.json": json_lines(
                *({"label": str(n), "label_des": "x", "sentence": f"好{n}"} for n in range(4))
            ),
            "dev.json": json_lines(
                {"label": "118", "label_des": "x", "sentence": "大"}, {"label": "1", "sentence": "小"}
            ),
            "test.json": json_lines({"id": 0, "sentence": "人"}),
        },
        (4, 2),
    ),
    (
        "clue:csl",
        "csl_public",
        {
            "train.json": json_lines(*_CSL),
            "dev.json": json_lines(*_CSL[:2]),
            "test.json": json_lines({name: value for name, value in _CSL[0].items() if name != "label"}),
        },
        (4, 2),
    ),
    (
        "clue:cluewsc",
        "cluewsc2020_public",
        {
            "train.json": json_lines(*_WSC),
            "dev.json": json_lines(*_WSC[:2]),
            "test.json": json_lines({"id": 0, "text": "大地不好你", "target": _SPANS}),
        },
        (4, 2),
    ),
    (
        "clue:chnsenticorp",
        "ChnSentiCorp",
        {
            "train.tsv": table("好|positive", "坏|negative"),
            "dev.tsv": table("大|positive", "小|negative"),
            "test.tsv": table("0|人", header="qid|text_a"),
        },
        (2, 2),
    ),
    (
        "clue:chnsenticorp",
        "chnsenticorp",
        {
            "train.tsv": table("1|好", "0|坏", header="label|text_a"),
            "dev.tsv": table("0|1|大", "1|0|小", header="qid|label|text_a"),
            "test.tsv": table("0|人", header="qid|text_a"),
        },
        (2, 2),
    ),
    ("clue:lcqmc", "lcqmc", {f"{split}.txt": text for split, text in _THREE_PAIRS.items()}, (4, 2)),
    ("ner:resume", "ResumeNER", {name.format(kind="char"): text for name, text in _BMES.items()}, (2, 2)),
    ("ner:resume", "ner/resume", _TAG_JSON, (2, 2)),
    ("ner:weibo", "weibo", {name.format(kind="all"): text for name, text in _BMES.items()}, (2, 2)),
    ("ner:weibo", "weibo", _TAG_JSON, (2, 2)),
    (
        "ner:weibo",
        "weiboNER",
        {
            f"weiboNER_2nd_conll.{split}": conll("大0/B-LOC.NAM 地1/I-LOC.NAM", "10/O 好0/O", separator="\t")
            for split in ("train", "dev", "test")
        },
        (2, 2),
    ),
    ("ner:msra", "msra", {f"{split}.txt": _BIO for split in ("train", "dev", "test")}, (2, 2)),
    (
        "ner:ontonotes4",
        "OntoNotes4",
        {name.format(kind="char"): text for name, text in _BMES.items()},
        (2, 2),
    ),
    (
        "ner:cluener",
        "cluener_public",
        {
            "train.json": json_lines(*_NER_ROWS),
            "dev.json": json_lines(*_NER_ROWS),
            "test.json": json_lines({"id": 0, "text": "大地"}),
        },
        (3, 3),
    ),
    (
        "ner:wnut17",
        "wnut17",
        dict.fromkeys(("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"), _BIO),
        (2, 2),
    ),
    (
        "ner:conll2003",
        "conll2003",
        {
            name: "-DOCSTART- -X- -X- O\n\n"
            + conll("dog/NN/B-NP/B-LOC is/V/O/O", "cat/NN/B-NP/I-PER is/V/O/O")
            for name in ("eng.train", "eng.testa", "eng.testb")
        },
        (2, 2),
    ),
    (
        "sts:stsb",
        "STS-B",
        _glue(
            _STSB_HEADER, _STSB_ROW, ("0.000", "4.500"), _STSB_HEADER.rsplit("|", 1)[0], "0|m|f|y|0|n|n|a|b"
        ),
        (4, 2),
    ),
    (
        "sts:stsb",
        "stsbenchmark",
        {
            f"sts-{split}.csv": table(
                *_numbered(_ORIGINAL, ("1.0", "2.5")), _ORIGINAL.format(n=9, label=3) + "|one|two"
            )
            for split in ("train", "dev", "test")
        },
        (5, 5),
    ),
    (
        "sts:stsb-zh",
        "sts-b-zh",
        {
            f"sts-b-{split}.txt": table(*_numbered("好{n}|坏{n}|{label}", ("0", "5", "1", "2")))
            for split in ("train", "dev", "test")
        },
        (4, 4),
    ),
    (
        "sts:afqmc",
        "afqmc",
        {f"{split}.txt": text for split, text in _THREE_PAIRS.items() if split != "test"},
        (4, 2),
    ),
    ("sts:lcqmc", "LCQMC", {f"{split}.tsv": text for split, text in _THREE_PAIRS.items()}, (4, 2)),
    ("sts:bq", "bq_corpus", {f"{split}.tsv": text for split, text in _THREE_PAIRS.items()}, (4, 2)),
    (
        "sts:atec",
        "ATEC",
        {"atec_nlp_sim_train.csv": BOM + table(*_numbered("{n}|好{n}|坏{n}|{label}", ("0", "1"), 40))},
        (36, 4),
    ),
]
"""Name of the set, its folder, its files, and the rows of train and dev that are read."""


def write_set(root: Path, folder: str, files: dict[str, str]) -> Path:
    """Write the files of a set; return the folder that holds its folder."""
    where = root / folder
    where.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (where / name).write_text(text, encoding="utf-8")
    return root


def forms_of(name: str) -> dict[str, str]:
    """The first form of a set."""
    return next(files for known, _, files, _ in FORMS if known == name)
