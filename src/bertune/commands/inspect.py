"""A look before any training: at a data file, its columns, labels, and what the model will see; or at the folder of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bertune.config.load import apply_override, resolve_config
from bertune.config.schema import DataConfig, Section
from bertune.data.columns import normalize_name
from bertune.data.dataset import EncodedDataset
from bertune.data.formats import detect_format, read_records
from bertune.data.labels import format_label
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows, resolve_files
from bertune.encoders.checkpoint_report import format_checkpoint_report, make_checkpoint_report
from bertune.encoders.pretrained import PACKAGED_MODELS, PretrainedFolder, locate_model
from bertune.errors import BertuneError, ConfigError
from bertune.tasks import load_task
from bertune.tasks.base.reading import read_examples
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.types import JSON, Columns, Example

_ANY = Columns(("text",), ("text_b",), "label")


def inspect(
    file: str,
    overrides: Sequence[str] = (),
    *,
    task: str = "auto",
    model: str = "minilm",
    num_samples: int = 5,
    seed: int = 42,
) -> JSON:
    """Describe a data file, or the folder of a model.

    Args:
        file: a data file with targets; or a folder, for which see `bertune.encoders.checkpoint_report`.
        overrides: `data.name=value`.
        task: `auto` looks at the label column: fractions are taken as regress, sentences of words and spans as tag, everything else as
            classify.
        model: whose tokenizer shows what the model will see.
        num_samples: how many random rows to show; fewer if the file has fewer.
        seed: which rows.

    Returns:
        `notes`, `problem`, `rows`, `targets` (counts or range), `rows_with` (rows that have a label), `tokens`
        (lengths) and `samples`, all JSON-ready.

    Raises:
        BertuneError: the file, a row or a setting cannot be used.
    """
    if file == "-":
        raise ConfigError(
            "inspect looks at a file more than once, so it cannot read standard input; give a file"
        )
    if Path(file).is_dir() or (file in PACKAGED_MODELS and not Path(file).exists()):
        if overrides:
            raise ConfigError(
                f"{overrides[0]!r}: settings say how to read a data file, and {file!r} is a folder; leave them out"
            )
        return make_checkpoint_report(Path(file) if Path(file).is_dir() else locate_model(file))
    notes: list[str] = []
    source = resolve_files(file, "train")[0]
    raw: JSON = {"task": task}
    for override in overrides:
        apply_override(raw, override)
    if task == "auto":
        raw["task"], why = guess_task(source, resolve_config({**raw, "task": "classify"}, Section)[0].data)
        notes.append(f"task: {raw['task']}, {why}; --task says otherwise")
    task_class = load_task(raw["task"])
    run, options = resolve_config(raw, task_class.Options)
    learner = task_class(options, run.data)
    examples = read_examples([source], learner, run.data, notes.append)
    learner.fit(examples, notes.append)
    report: JSON = {
        "notes": notes,
        "problem": learner.describe(),
        "rows": len(examples),
        "targets": _targets(learner, examples),
    }
    report["rows_with"] = dict(Counter(label for e in examples for label in set(learner.example_labels(e))))
    chosen = np.random.default_rng(seed).permutation(len(examples))[:num_samples].tolist()
    report["samples"] = [_sample(examples[i]) for i in chosen]
    report["tokens"] = None
    try:
        tokenizer = PretrainedFolder(locate_model(model)).load_tokenizer(run.data)
    except BertuneError as error:
        notes.append(f"no tokens shown: {error}")
    else:
        _add_tokens(report, learner, tokenizer, [examples[i] for i in chosen], examples)
    return report


def guess_task(source: str, data: DataConfig) -> tuple[str, str]:
    """Return a task by the look of the file and its label column, and why."""
    if looks_like_tagging(source, data):
        return "tag", "since rows are sentences of words, or have spans"
    faults = BadRows(skip=True)
    fractions = total = 0
    for row in open_rows(ReadOptions(source, data, _ANY, faults, lambda _: None)):
        value = row.fields.get("label")
        if value is None or isinstance(value, list):
            continue
        total += 1
        try:
            fractions += not float(format_label(value)).is_integer()
        except (ValueError, OverflowError):
            return "classify", f"since a label is the text {format_label(value)!r}"
    if fractions:
        return "regress", f"since {fractions} of {total} labels are fractions"
    return "classify", "since the labels are lists" if not total else "since the labels are whole numbers"


def looks_like_tagging(source: str, data: DataConfig) -> bool:
    """Tell whether the first row is a sentence with something for each word, or has spans."""
    kind = detect_format(source, data, _ANY)
    if kind == "conll":
        return True
    first = next(read_records(ReadOptions(source, data, _ANY, BadRows(skip=True), lambda _: None)), None)
    if first is None or kind in {"csv", "tsv"}:
        return False
    values = {normalize_name(name): value for name, value in first.values.items()}
    lists = [value for value in values.values() if isinstance(value, list)]
    spans = any(value and isinstance(value[0], dict | list) for value in lists)
    return (
        spans
        or bool({"spans", "entities", "nertags"} & values.keys())
        or any(isinstance(values.get(n), list) for n in ("text", "tokens", "words"))
    )


def _targets(task: Task, examples: Sequence[Example]) -> JSON:
    if isinstance(examples[0].target, int | float) and len({e.target for e in examples}) > 2:
        values = np.array([e.target for e in examples])
        low, middle, high = np.percentile(values, [0, 50, 100])
        return {"min": float(low), "median": float(middle), "mean": float(values.mean()), "max": float(high)}
    counts: Counter[str] = Counter()
    for example in examples:
        counts.update(task.example_labels(example))
    return dict(counts.most_common())


def _sample(example: Example) -> JSON:
    target = example.target
    if isinstance(target, tuple):
        target = [list(one) if isinstance(one, tuple) else one for one in target]
    return {"place": str(example.location), "texts": list(example.texts), "target": target}


def _add_tokens(
    report: JSON, task: Task, tokenizer: Tokenizer, shown: list[Example], examples: Sequence[Example]
) -> None:
    for sample, encoded in zip(report["samples"], task.encode(shown, tokenizer), strict=True):
        ids = [int(i) for piece in encoded.inputs for i in piece.input_ids]
        sample |= {
            "tokens": tokenizer.convert_ids_to_tokens(ids),
            "ids": ids,
            "decoded": tokenizer.decode(ids),
            "length": len(ids),
        }
    task.report()  # of the samples, which are among the rows
    rows = EncodedDataset(task.encode(examples, tokenizer))
    report["notes"] += [*rows.diagnostics(tokenizer.unk_token_id, tokenizer.max_length), *task.report()]
    names = ("min", "median", "mean", "p95", "max")
    low, middle, high, longest = np.percentile(rows.lengths, [0, 50, 95, 100])
    values = (low, middle, rows.lengths.mean(), high, longest)
    report["tokens"] = {name: round(float(value), 1) for name, value in zip(names, values, strict=True)}


def report_lines(report: JSON) -> list[str]:
    """Lay a report out for reading."""
    if "weights" in report:
        return format_checkpoint_report(report)
    lines = [
        f"problem: {report['problem']}",
        f"rows: {report['rows']}",
        *(f"note: {n}" for n in report["notes"]),
    ]
    if report["tokens"]:
        lines.append("tokens a row: " + ", ".join(f"{k} {v:g}" for k, v in report["tokens"].items()))
    total = report["rows"]
    if set(report["targets"]) == {"min", "median", "mean", "max"}:
        lines.append("target: " + ", ".join(f"{k} {v:.4g}" for k, v in report["targets"].items()))
    else:
        shares = report["rows_with"]
        lines += ["labels, and the share of rows that have them:"]
        lines += [
            f"  {n:>7}  {shares[label] / total:6.1%}  {label}" for label, n in report["targets"].items()
        ]
    for sample in report["samples"]:
        lines += ["", f"{sample['place']}  target: {sample['target']}"]
        lines += [f"  text    {text}" for text in sample["texts"]]
        if "tokens" in sample:
            lines += [
                f"  tokens  {' '.join(sample['tokens'])}",
                f"  ids     {' '.join(map(str, sample['ids']))}",
                f"  decoded {sample['decoded']}",
                f"  length  {sample['length']}",
            ]
    return lines
