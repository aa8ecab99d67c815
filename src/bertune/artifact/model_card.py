"""The model card: README.md of a saved folder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from bertune.artifact.artifact import Artifact, bertune_only_reason, opens_in_sentence_transformers
from bertune.config.auto_rates import number
from bertune.config.new_encoder import NEW
from bertune.config.schema import TrainConfig
from bertune.console import duration
from bertune.errors import ArtifactError
from bertune.files import write_text
from bertune.tasks.base.calibration import IntervalCalibration, LabelCalibration
from bertune.tasks.base.head_outputs import MASKED_TOKENS, HeadOutputs
from bertune.tasks.base.task import Task
from bertune.types import JSON, Scores

_CALIBRATION = "## Calibration"
_MOST_LABELS = 100
"""Labels that the card lists."""


def write_model_card(artifact: Artifact, folder: Path, scores: dict[str, Scores], summary: JSON) -> None:
    """Write README.md.

    Args:
        artifact: the model.
        folder: where it is saved; its name is the title.
        scores: the scores of each split.
        summary: the figures of the run, as scores.json has them.
    """
    (folder / "README.md").write_text(model_card(artifact, folder.name, scores, summary), encoding="utf-8")


def model_card(artifact: Artifact, name: str, scores: dict[str, Scores], summary: JSON) -> str:
    """Return the text of the model card."""
    task = artifact.task
    lines = [
        "---",
        f"library_name: {_library_name(artifact)}",
        f"pipeline_tag: {task.pipeline_tag}",
        "tags: [bertune]",
        "---",
        "",
        f"# {name}",
        "",
        f"{_capitalize(task.describe())}. {_origin(artifact.run_config.model)}.",
        "",
        "```python",
        "import bertune",
        f'model = bertune.load("{name}")',
        *example_calls(task, makes_vectors=bool(artifact.model.embedding_dim)),
        "```",
        "",
    ]
    lines += [*_library_lines(artifact, name), *score_tables(scores), *_remarks(artifact, scores)]
    lines += calibration_lines(artifact.task)
    lines += _run_lines(artifact, summary)
    return "\n".join(lines)


def _origin(model: str) -> str:
    return "Trained with bertune from nothing" if model == NEW else f"Fine-tuned with bertune from `{model}`"


def example_calls(task: Task, *, makes_vectors: bool) -> list[str]:
    """Return the calls that fit a model: a model of pairs predicts pairs."""
    if task.head_outputs() == HeadOutputs(MASKED_TOKENS):
        return ['model.fill("... [MASK] ...")']
    is_of_pairs = len(task.columns.required) == 2 or getattr(task, "num_texts", None) == 2
    encode = ['model.encode(["...", "..."])'] if makes_vectors else []
    if is_of_pairs:
        return [*encode, 'model.predict([("...", "...")])']
    return encode or ['model.predict(["..."])']


def _library_name(artifact: Artifact) -> str:
    if opens_in_sentence_transformers(artifact):
        return "sentence-transformers"
    if bertune_only_reason(artifact) or artifact.task.hf_incompatibility(artifact.model.head):
        return "bertune"
    return "transformers"


def _library_lines(artifact: Artifact, name: str) -> list[str]:
    """Say which other tools open the folder, and how."""
    task, head = artifact.task, artifact.model.head
    if opens_in_sentence_transformers(artifact):
        return [
            "It opens in sentence-transformers too, with the same vectors:",
            "",
            "```python",
            "from sentence_transformers import SentenceTransformer",
            f'model = SentenceTransformer("{name}")',
            "```",
            "",
        ]
    if bertune_only_reason(artifact):
        return [f"No other tool opens it as it is: {bertune_only_reason(artifact)}.", ""]
    if task.hf_incompatibility(head):
        return [f"transformers opens only the encoder of this folder: {task.hf_incompatibility(head)}.", ""]
    lines = [
        "It opens in transformers too, with the same logits:",
        "",
        "```python",
        f"from transformers import {task.hf_auto_class}, AutoTokenizer",
        f'model = {task.hf_auto_class}.from_pretrained("{name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        "```",
        "",
    ]
    if task.ignored_by_hf(head):
        lines += [f"What transformers leaves out: {task.ignored_by_hf(head)}.", ""]
    return lines


def score_tables(scores: Mapping[str, Scores]) -> list[str]:
    """Return the section of scores: two tables a split."""
    lines = ["## Scores", ""]
    for split, split_scores in scores.items():
        lines += [f"### {split}", "", "| figure | value | 95 % bootstrap interval |", "|---|---|---|"]
        for figure, value in split_scores.values.items():
            pair = split_scores.intervals.get(figure)
            lines.append(f"| {figure} | {value:.4f} | {f'{pair[0]:.4f} to {pair[1]:.4f}' if pair else ''} |")
        lines.append("")
        baseline, main = split_scores.baseline, split_scores.main_metric
        if baseline is not None and main in baseline.values:
            lines += [f"For comparison, {baseline.name}: {main} {baseline.values[main]:.4f}.", ""]
        if split_scores.per_label:
            lines += ["| label | precision | recall | F1 | rows |", "|---|---|---|---|---|"]
            for label, values in itertools.islice(split_scores.per_label.items(), _MOST_LABELS):
                figures = " | ".join(f"{values[name]:.4f}" for name in ("precision", "recall", "f1"))
                lines.append(f"| {_escape(label)} | {figures} | {values['support']} |")
            if len(split_scores.per_label) > _MOST_LABELS:
                lines += ["", f"All {len(split_scores.per_label)} labels are in `scores.json`."]
            lines.append("")
    return lines


def _remarks(artifact: Artifact, scores: dict[str, Scores]) -> list[str]:
    """Say what the figures are worth."""
    lines = []
    if "out_of_fold" in scores:
        lines.append(
            "The figures `out_of_fold` are those of the models of a cross-validation with the same settings, "
            "each on rows that it was not trained on. This model was trained on all of these rows."
        )
    if "dev" in scores and ("out_of_fold" in scores or artifact.run_config.train.eval_every == "end"):
        lines.append("The dev rows chose no checkpoint: the model is that of the last step.")
    elif "dev" in scores:
        lines.append(
            "The dev score chose the checkpoint, so the dev figures are a little too good; test figures are "
            "not."
        )
    if not lines:
        lines.append("Trained without dev rows: the model is that of the last step, and has no dev score.")
    return [" ".join(lines), ""]


def calibration_lines(task: Task, *, after_training: bool = False) -> list[str]:
    """Return the section on calibration; empty where there is none.

    Args:
        task: the task with what it has learnt.
        after_training: whether the scores of the card are older.
    """
    calibration = getattr(task, "calibration", None)
    if not isinstance(calibration, LabelCalibration | IntervalCalibration):
        return []
    lines = [_CALIBRATION, "", f"- {_capitalize(calibration.describe())}."]
    if isinstance(calibration, LabelCalibration):
        lines += _label_calibration_lines(calibration, getattr(task, "named_thresholds", dict)())
        lines.append("- Other tools ignore it: they give the model's own probabilities and decisions.")
    lines.append(f"- `bertune predict --coverage` uses the same {calibration.num_rows} rows.")
    if after_training:
        lines.append("- Scores in this card were measured before.")
    return [*lines, ""]


def _label_calibration_lines(calibration: LabelCalibration, thresholds: dict[str, float]) -> list[str]:
    lines = []
    if thresholds:
        named = [f"`{label}` {t:.4g}" for label, t in itertools.islice(thresholds.items(), _MOST_LABELS)]
        rest = f", ... ({len(thresholds)} in all)" if len(thresholds) > _MOST_LABELS else ""
        lines.append(f"- Thresholds by {calibration.rule}: {', '.join(named)}{rest}.")
    names = {"ece": "expected calibration error", "nll": "negative log-likelihood", "brier": "Brier score"}
    if calibration.after:
        lines += ["", "| figure | before | after |", "|---|---|---|"]
        for name, title in names.items():
            lines.append(f"| {title} | {calibration.before[name]:.4f} | {calibration.after[name]:.4f} |")
        lines.append("")
    return lines


def rewrite_calibration(folder: Path, task: Task) -> None:
    """Change the section on calibration in README.md, and nothing else; without a README nothing happens.

    Raises:
        ArtifactError: it cannot be read or written.
    """
    path = folder / "README.md"
    try:
        if path.is_file():
            card = path.read_text(encoding="utf-8")
            section = "\n".join(calibration_lines(task, after_training=True))
            write_text(path, _replace_section(card, section))
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be rewritten: {error}") from None


def _replace_section(card: str, section: str) -> str:
    """Return a card whose section on calibration is another one; a new section goes before the last part."""
    head, mark, rest = card.partition(f"\n{_CALIBRATION}\n")
    if mark:
        _, next_mark, tail = rest.partition("\n## ")
        tail = next_mark[1:] + tail
    else:
        head, next_mark, tail = card.partition("\n## Training\n")
        tail = next_mark[1:] + tail
    parts = [part.strip("\n") for part in (head, section, tail)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _run_lines(artifact: Artifact, summary: JSON) -> list[str]:
    run = artifact.run_config
    rows = ", ".join(f"{v['rows']} {split}" for split, v in artifact.metadata.get("data", {}).items())
    return [
        "## Training",
        "",
        f"- rows: {rows}; at most {artifact.tokenizer.max_length} tokens a row",
        f"- {summary['steps']} steps of {run.train.batch_size} rows, "
        f"{_rates(run.train)}, {run.train.schedule} schedule, seed {run.seed}; "
        f"best at step {summary['best_step']}",
        f"- {duration(summary['train_seconds'])} on {summary['device']} in {summary['precision']}, "
        f"{summary['rows_per_s']:.0f} rows/s",
        "- every setting: `run.yaml`; every step: `history.jsonl`",
        "",
    ]


def _rates(train: TrainConfig) -> str:
    head = train.head_learning_rate
    of_head = f" (head {head:g})" if isinstance(head, float) and head != train.learning_rate else ""
    return f"learning rate {number(train, 'learning_rate'):g}{of_head}"


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
