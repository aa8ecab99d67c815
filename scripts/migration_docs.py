"""Write the tables of docs/from from the flags in bertune.migration, and examples/seed-*.yaml from commands.

Run it after changing a flag, a default or a command. A table stands between `<!-- table: NAME -->` and
`<!-- end -->`; what is around it is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from seed_examples import EXAMPLES, example_text

from bertune.config.schema import RunConfig
from bertune.config.yaml import dump_flow
from bertune.migration import accelerate_flags, bertorch_flags, transformers_flags
from bertune.migration.flag import Flag
from bertune.migration.sentence_transformers_flags import ARGUMENTS, LOSSES, PIECES
from bertune.migration.training_arguments import FIELDS
from bertune.tasks import load_task

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "from"
MARKED = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def default_here(path: str, task: str) -> str:
    """Return the default of a setting; empty where it has none."""
    section, _, name = path.rpartition(".")
    model = (
        load_task(task).Options
        if section == "options"
        else RunConfig.model_fields[section].annotation
        if section
        else RunConfig
    )
    field = model.model_fields[name]
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if value is None or value == []:
        return ""
    return "off" if value is False else "on" if value is True else dump_flow(value).strip("'")


def flag_table(flags: Iterable[Flag], task: str, dashes: str = "--") -> list[str]:
    """Lay out flags that have a setting, or a place on the command line; then the others."""
    flags = list(flags)
    used = [flag for flag in flags if flag.status in {"setting", "command"}]
    lines: list[str] = []
    if used:
        lines += [
            "| there | bertune | default there | default here | what to know |",
            "|---|---|---|---|---|",
        ]
    for flag in used:
        here = ", ".join(f"`{path}`" for path in flag.settings) or f"`{flag.here}`"
        defaults = [default_here(path, task_of(path, task)) for path in flag.settings]
        ours = ", ".join(dict.fromkeys(value for value in defaults if value))
        version = f" ({flag.version})" if flag.version else ""
        cells = (f"`{dashes}{flag.name}`{version}", here, flag.default_there, ours, flag.note)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    idle = [flag for flag in flags if flag.status not in {"setting", "command"}]
    if idle:
        lines += [""] * bool(lines) + ["| there | bertune | why |", "|---|---|---|"]
    for flag in idle:
        version = f" ({flag.version})" if flag.version else ""
        cells = (f"`{dashes}{flag.name}`{version}", flag.status, flag.note)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return lines


def task_of(path: str, task: str) -> str:
    """Return the task whose option a setting is: that of the script, else one that has it."""
    name = path.partition(".")[2]
    tasks = (task, "classify", "match", "embed", "tag")
    return next((t for t in tasks if name in load_task(t).Options.model_fields), task)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _common() -> list[Flag]:
    names = set.intersection(
        *(
            {flag.name for flag in flags}
            for script, flags in bertorch_flags.FLAGS.items()
            if script != "predict.py"
        )
    )
    common = [flag for flag in bertorch_flags.CLASSIFIER if flag.name in names]
    return [
        Flag(**{**vars(flag), "default_text": "3 (SimCSE 1)"}) if flag.name == "epochs" else flag
        for flag in common
    ]


def _more(script: str, task: str) -> Callable[[], list[str]]:
    def table() -> list[str]:
        common = {flag.name for flag in _common()}
        return flag_table([f for f in bertorch_flags.FLAGS[script] if f.name not in common], task)

    return table


def _script(flags: tuple[Flag, ...], task: str) -> Callable[[], list[str]]:
    def table() -> list[str]:
        fields = {flag.name for flag in FIELDS}
        return flag_table([flag for flag in flags if flag.name not in fields], task)

    return table


def _status(*statuses: str) -> Callable[[], list[str]]:
    return lambda: flag_table([flag for flag in FIELDS if flag.status in statuses], "classify", "")


def loss_table() -> list[str]:
    """Lay out the losses of sentence-transformers."""
    lines = ["| loss | bertune train | what to know |", "|---|---|---|"]
    for loss in LOSSES:
        here = f"`{loss.here}`" if loss.here else "not available"
        lines.append(f"| `{loss.name}` | {here} | {loss.note} |")
    return lines


def piece_table() -> list[str]:
    """Lay out the other pieces of sentence-transformers."""
    rows = [f"| {there} | {here} | {note} |" for there, here, note in PIECES]
    return ["| sentence-transformers | bertune | what to know |", "|---|---|---|", *rows]


TABLES: dict[str, Callable[[], list[str]]] = {
    "bertorch": lambda: flag_table(_common(), "classify"),
    "run_classifier.py": _more("run_classifier.py", "classify"),
    "run_sentencebert.py": _more("run_sentencebert.py", "match"),
    "run_simcse.py": _more("run_simcse.py", "embed"),
    "run_batchneg.py": _more("run_batchneg.py", "embed"),
    "run_ner.py of bertorch": _more("run_ner.py", "tag"),
    "predict.py": lambda: flag_table(bertorch_flags.PREDICT, "match"),
    "run_base.py": lambda: flag_table(accelerate_flags.RUN_BASE, "classify"),
    "tnews.py": lambda: flag_table(accelerate_flags.TNEWS, "classify"),
    "run_glue.py": _script(transformers_flags.GLUE, "classify"),
    "run_ner.py": _script(transformers_flags.NER, "tag"),
    "run_mlm.py": _script(transformers_flags.MLM, "pretrain"),
    "TrainingArguments": _status("setting", "command"),
    "TrainingArguments not needed": _status("not needed"),
    "TrainingArguments not available": _status("not available"),
    "SentenceTransformerTrainingArguments": lambda: flag_table(ARGUMENTS, "embed", ""),
    "losses": loss_table,
    "pieces": piece_table,
}


def page_text(text: str) -> str:
    """Return a page with its tables as they are now."""
    return MARKED.sub(
        lambda match: match[1] + "\n".join(["", *TABLES[match[2]](), ""]) + "\n" + match[3], text
    )


if __name__ == "__main__":
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(page_text(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name in EXAMPLES:
        (ROOT / "examples" / f"{name}.yaml").write_text(example_text(name), encoding="utf-8")
