"""`bertune inspect`: a look at a data file as the model will see it, or at the folder of a model."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bertune.artifact.members import MEMBERS, is_ensemble, member_folders
from bertune.artifact.read import build_task, read_metadata, read_run
from bertune.catalog.sets import is_set_name, split_name
from bertune.catalog.use import named_rows
from bertune.config.load import apply_override, resolve_config
from bertune.config.schema import DataConfig, Section
from bertune.data.columns import normalize_name
from bertune.data.dataset import EncodedDataset
from bertune.data.formats import detect_format, read_records
from bertune.data.labels import format_label, get_label_list
from bertune.data.records import BadRows, ReadOptions
from bertune.data.rows import open_rows, resolve_files
from bertune.data.word_rows import has_word_rows
from bertune.encoders.checkpoint_report import format_checkpoint_report, make_checkpoint_report
from bertune.encoders.packaged import PACKAGED_MODELS
from bertune.encoders.pretrained import PretrainedFolder, locate_model
from bertune.errors import BertuneError, ConfigError
from bertune.files import read_json_object
from bertune.tasks import load_task
from bertune.tasks.base.reading import read_and_fit
from bertune.tasks.base.task import Task
from bertune.text.tokenizer import Tokenizer
from bertune.types import JSON, Columns, Example

_GUESS_ROWS = 200
"""Rows that show whether a file has a word a row."""
_ANY_COLUMNS = Columns(("text",), ("text_b",), "label", spreadable=("label",))
"""The fields of the rows of most tasks, to guess the task of a file."""


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
        file: a data file with targets, or a named set; or a folder, see `bertune.encoders.checkpoint_report`.
        overrides: `data.name=value`, how to read the file.
        task: the name of a task. "auto" looks at the label column: fractions are regress, sentences of words
            and spans are tag, everything else is classify.
        model: the model whose tokenizer shows the tokens.
        num_samples: how many random rows to show; fewer if the file has fewer.
        seed: which random rows.

    Returns:
        `notes`, `task`, `description` (what the task learned from the rows), `rows`, `targets` (label counts,
        or the range of numbers), `rows_with_label` (by label), `samples` and `tokens` (lengths); JSON-ready.

    Raises:
        BertuneError: the file, a row or a setting cannot be used.
    """
    _refuse_standard_input(file)
    if Path(file).is_dir() or (file in PACKAGED_MODELS and not Path(file).exists()):
        if overrides:
            raise ConfigError(
                f"{overrides[0]!r}: settings say how to read a data file, and {file!r} is a folder; "
                "leave them out"
            )
        return _report_folder(Path(file) if Path(file).is_dir() else locate_model(file))
    notes: list[str] = []
    task = split_name(file)[0].task if task == "auto" and is_set_name(file) else task
    file, overrides = named_rows(file, overrides, "train", notes.append, scored=True, labels=True)
    source = resolve_files(file, "train")[0]
    raw: JSON = {"task": task}
    for override in overrides:
        apply_override(raw, override)
    if task == "auto":
        data = resolve_config({**raw, "task": "classify"}, Section)[0].data
        raw["task"], reason = guess_task(source, data)
        notes.append(f"task: {raw['task']}, {reason}; --task says otherwise")
    task_class = load_task(raw["task"])
    run, options = resolve_config(raw, task_class.Options)
    fitted = task_class(options, run.data)
    examples = read_and_fit([source], fitted, run.data, notes.append)
    sample_rows = np.random.default_rng(seed).permutation(len(examples))[:num_samples].tolist()
    samples = [examples[row] for row in sample_rows]
    report: JSON = {
        "notes": notes,
        "task": raw["task"],
        "description": fitted.describe(),
        "rows": len(examples),
        "targets": _count_targets(fitted, examples),
        "rows_with_label": dict(Counter(label for e in examples for label in set(fitted.example_labels(e)))),
        "samples": [_sample_to_json(example) for example in samples],
        "tokens": None,
    }
    try:
        tokenizer = PretrainedFolder(locate_model(model)).load_tokenizer(run.data)
    except BertuneError as error:
        notes.append(f"no tokens shown: {error}")
    else:
        _add_tokens(report, fitted, tokenizer, samples, examples)
    return report


def _refuse_standard_input(file: str) -> None:
    if file == "-":
        raise ConfigError(
            "inspect reads a file more than once, so it cannot read standard input; give a file"
        )


def _report_folder(folder: Path) -> JSON:
    """Describe the folder of a model; an ensemble by its members."""
    if not is_ensemble(read_json_object(folder / "bertune.json")):
        return make_checkpoint_report(folder)
    metadata = read_metadata(folder)
    report: JSON = {"folder": str(folder), "task": metadata["task"], "description": None}
    report |= {"members": {}, "lacks": []}
    try:
        report["description"] = build_task(folder, metadata, read_run(folder)).describe()
    except BertuneError as error:
        report["lacks"].append(str(error))
    for path in member_folders(folder, metadata):
        try:
            member = report["members"][path.name] = make_checkpoint_report(path)
            report["lacks"] += [f"{path.name}: {fault}" for fault in member["lacks"]]
        except BertuneError as error:
            report["lacks"].append(f"{path.name}: {error}")
    return report


def guess_task(source: str, data: DataConfig) -> tuple[str, str]:
    """Return a task that fits the file and its label column, and the reason."""
    if looks_like_tagging(source, data):
        return "tag", "since rows are sentences of words, or have spans"
    bad_rows = BadRows(skip=True)
    num_fractions = num_labels = 0
    for row in open_rows(ReadOptions(source, data, _ANY_COLUMNS, bad_rows, lambda _: None)):
        value = row.fields.get("label")
        if value is None or isinstance(value, list | dict):
            continue
        if get_label_list(value, None) is not None:
            return "classify", f"since a label is the list {value[:40]}"
        num_labels += 1
        try:
            num_fractions += not float(format_label(value)).is_integer()
        except (ValueError, OverflowError):
            return "classify", f"since a label is the text {format_label(value)!r}"
    if num_fractions:
        return "regress", f"since {num_fractions} of {num_labels} labels are fractions"
    return "classify", "since the labels are whole numbers" if num_labels else "since the labels are lists"


def looks_like_tagging(source: str, data: DataConfig) -> bool:
    """Tell whether the first row is a sentence with something for each word, or has spans."""
    file_format = detect_format(source, data, _ANY_COLUMNS)
    if file_format == "conll":
        return True
    options = ReadOptions(source, data, _ANY_COLUMNS, BadRows(skip=True), lambda _: None)
    head = list(itertools.islice(read_records(options), _GUESS_ROWS))
    if not head or file_format in {"csv", "tsv"}:
        return bool(head) and has_word_rows(head, options)
    first = head[0]
    values = {normalize_name(name): value for name, value in first.values.items()}
    lists = [value for value in values.values() if isinstance(value, list)]
    has_spans = any(value and isinstance(value[0], dict | list) for value in lists)
    return (
        has_spans
        or has_word_rows(head, options)
        or bool({"spans", "entities", "nertags"} & values.keys())
        or any(isinstance(values.get(name), list) for name in ("text", "tokens", "words"))
    )


def _count_targets(task: Task, examples: Sequence[Example]) -> JSON:
    if isinstance(examples[0].target, int | float) and len({e.target for e in examples}) > 2:
        values = np.array([e.target for e in examples])
        low, middle, high = np.percentile(values, [0, 50, 100])
        return {"min": float(low), "median": float(middle), "mean": float(values.mean()), "max": float(high)}
    counts: Counter[str] = Counter()
    for example in examples:
        counts.update(task.example_labels(example))
    return dict(counts.most_common())


def _sample_to_json(example: Example) -> JSON:
    target = example.target
    if isinstance(target, tuple):
        target = [list(value) if isinstance(value, tuple) else value for value in target]
    return {"location": str(example.location), "texts": list(example.texts), "target": target}


def _add_tokens(
    report: JSON, task: Task, tokenizer: Tokenizer, samples: list[Example], examples: Sequence[Example]
) -> None:
    """Add the tokens of the samples to a report, and the lengths of all rows in tokens."""
    for sample, encoded in zip(report["samples"], task.encode(samples, tokenizer), strict=True):
        ids = [int(i) for encoding in encoded.inputs for i in encoding.input_ids]
        sample |= {
            "tokens": tokenizer.convert_ids_to_tokens(ids),
            "ids": ids,
            "decoded": tokenizer.decode(ids),
            "length": len(ids),
        }
    task.report()  # drops what it says about the samples: they are among all rows
    dataset = EncodedDataset(task.encode(examples, tokenizer))
    report["notes"] += [*dataset.diagnostics(tokenizer.unk_token_id, tokenizer.max_length), *task.report()]
    shortest, median, p95, longest = np.percentile(dataset.lengths, [0, 50, 95, 100])
    lengths = {
        "min": shortest,
        "median": median,
        "mean": dataset.lengths.mean(),
        "p95": p95,
        "max": longest,
    }
    report["tokens"] = {name: round(float(value), 1) for name, value in lengths.items()}


def _ensemble_lines(report: JSON) -> list[str]:
    count = f"{len(report['members'])} models of task {report['task']}"
    lines = [f"ensemble: {report['folder']}, of {count}; it predicts their mean"]
    lines += [f"task: {report['description']}"] if report["description"] else []
    for name, member in report["members"].items():
        numbers = sum(row["numbers"] for row in member["weights"]) / 1e6
        lines.append(f"  {name}: {member['kind']}, {numbers:.2f} M numbers, read by {member['read_by']}")
    lines.append(f"more about one: bertune inspect {report['folder']}/{MEMBERS}/NAME")
    return [*lines, "lacks: " + ("; ".join(report["lacks"]) or "nothing")]


def report_lines(report: JSON) -> list[str]:
    """Format a report of `inspect` as lines."""
    if "weights" in report:
        return format_checkpoint_report(report)
    if "members" in report:
        return _ensemble_lines(report)
    lines = [
        f"task: {report['description']}",
        f"rows: {report['rows']}",
        *(f"note: {note}" for note in report["notes"]),
    ]
    if report["tokens"]:
        lengths = ", ".join(f"{name} {value:g}" for name, value in report["tokens"].items())
        lines.append(f"tokens a row: {lengths}")
    if set(report["targets"]) == {"min", "median", "mean", "max"}:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in report["targets"].items())
        lines.append(f"target: {figures}")
    else:
        lines.append("labels, and the share of rows that have them:")
        for label, count in report["targets"].items():
            lines.append(f"  {count:>7}  {report['rows_with_label'][label] / report['rows']:6.1%}  {label}")
    for sample in report["samples"]:
        lines += ["", f"{sample['location']}  target: {sample['target']}"]
        lines += [f"  text    {text}" for text in sample["texts"]]
        if "tokens" in sample:
            lines += [
                f"  tokens  {' '.join(sample['tokens'])}",
                f"  ids     {' '.join(map(str, sample['ids']))}",
                f"  decoded {sample['decoded']}",
                f"  length  {sample['length']}",
            ]
    return lines
