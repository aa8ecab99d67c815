"""The model card: README.md of a saved folder."""

from __future__ import annotations

from pathlib import Path

from bertune.artifact.artifact import Artifact, bertune_only_reason, opens_in_sentence_transformers
from bertune.console import duration
from bertune.types import JSON, Scores


def write_model_card(artifact: Artifact, folder: Path, scores: dict[str, Scores], summary: JSON) -> None:
    """Write README.md from what is known of the run."""
    (folder / "README.md").write_text(model_card(artifact, folder.name, scores, summary), encoding="utf-8")


def model_card(artifact: Artifact, name: str, scores: dict[str, Scores], summary: JSON) -> str:
    """Return the text of the model card."""
    run, task = artifact.run_config, artifact.task
    foreign, why = bertune_only_reason(artifact), task.hf_incompatibility(artifact.model.head)
    in_sentence_transformers = opens_in_sentence_transformers(artifact)
    library = (
        "sentence-transformers"
        if in_sentence_transformers
        else "bertune"
        if foreign or why
        else "transformers"
    )
    lines = [
        "---",
        f"library_name: {library}",
        f"pipeline_tag: {task.pipeline_tag}",
        "tags: [bertune]",
        "---",
        "",
        f"# {name}",
        "",
        f"{_capital(task.describe())}. Fine-tuned with bertune from `{run.model}`.",
        "",
        "```python",
        "import bertune",
        f'model = bertune.load("{name}")',
        'model.encode(["..."])' if artifact.model.embedding_dim else 'model.predict(["..."])',
        "```",
        "",
    ]
    if in_sentence_transformers:
        lines += [
            "It opens in sentence-transformers too, with the same vectors:",
            "",
            "```python",
            "from sentence_transformers import SentenceTransformer",
            f'model = SentenceTransformer("{name}")',
            "```",
            "",
        ]
    elif foreign:
        lines += [f"No other tool opens it as it is: {foreign}.", ""]
    elif why:
        lines += [f"transformers opens only the encoder of this folder: {why}.", ""]
    else:
        lines += [
            "It opens in transformers too, with the same logits:",
            "",
            "```python",
            f"from transformers import {task.hf_auto_class}, AutoTokenizer",
            f'model = {task.hf_auto_class}.from_pretrained("{name}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
            "```",
            "",
        ]
        without = task.ignored_by_hf(artifact.model.head)
        lines += [f"What transformers leaves out: {without}.", ""] if without else []
    lines += _score_lines(scores) + _run_lines(artifact, summary)
    return "\n".join(lines)


def _score_lines(scores: dict[str, Scores]) -> list[str]:
    lines = ["## Scores", ""]
    for split, found in scores.items():
        lines += [f"### {split}", "", "| figure | value | 95 % bootstrap interval |", "|---|---|---|"]
        for figure, value in found.values.items():
            pair = found.intervals.get(figure)
            lines.append(f"| {figure} | {value:.4f} | {f'{pair[0]:.4f} to {pair[1]:.4f}' if pair else ''} |")
        lines.append("")
        if found.per_label:
            lines += ["| label | precision | recall | F1 | rows |", "|---|---|---|---|---|"]
            lines += [
                f"| {_cell(label)} | {v['precision']:.4f} | {v['recall']:.4f} | {v['f1']:.4f} | {v['support']} |"
                for label, v in found.per_label.items()
            ]
            lines.append("")
    lines += [
        "The checkpoint was chosen by its dev score, so the dev figures flatter it a little; test figures do not.",
        "",
    ]
    return lines


def _run_lines(artifact: Artifact, summary: JSON) -> list[str]:
    run = artifact.run_config
    rows = ", ".join(f"{v['rows']} {split}" for split, v in artifact.metadata.get("data", {}).items())
    return [
        "## Training",
        "",
        f"- rows: {rows}; at most {artifact.tokenizer.max_length} tokens a row",
        f"- {summary['steps']} steps of {run.train.batch_size} rows, learning rate {run.train.learning_rate:g}, "
        f"{run.train.schedule} schedule, seed {run.seed}; best at step {summary['best_step']}",
        f"- {duration(summary['train_seconds'])} on {summary['device']} in {summary['precision']}, {summary['rows_per_s']:.0f} rows/s",
        "- every setting: `run.yaml`; every step: `history.jsonl`",
        "",
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
