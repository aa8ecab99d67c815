"""Write docs/config.md from the settings themselves; run it after changing one."""

from __future__ import annotations

import types
import typing
from pathlib import Path

from pydantic import BaseModel

from bertune.config.schema import RunConfig, is_section, section_of
from bertune.config.tuning import TuneConfig
from bertune.tasks import load_task, task_names

INTRO = """# Settings

A run is one YAML file, or the name of a task, with `section.name=value` laid over it:

```bash
bertune train run.yaml train.epochs=5 data.limit=1000
bertune train classify data.train=reviews.csv
```

A value is YAML 1.2: `3e-5` is a number, `no` is text, `[a, b]` is a list, `{text: review}` is a mapping,
`null` is nothing. Unknown names and impossible values are refused, all at once. A setting without effect in
the run is named. A setting that was renamed is refused with its new name ([Glossary](glossary.md)).
`scripts/config_docs.py` writes this page; a test keeps it true.
"""


def kind_of(annotation: object) -> str:
    """Write a type the way a user would say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(dict.fromkeys(kind_of(a) for a in arguments if a is not type(None)))
    if origin is list:
        return f"list of {kind_of(arguments[0])}"
    if origin is dict:
        return "mapping"
    return {int: "integer", float: "number", str: "text", bool: "true or false"}.get(
        annotation, str(annotation)
    )


def table(model: type[BaseModel], prefix: str) -> list[str]:
    """Lay out the settings of a section."""
    lines = ["| setting | value | default | what it does |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if section_of(field.annotation):
            continue
        if prefix == "" and name == "options":
            continue
        default = (
            "must be given"
            if field.is_required()
            else f"`{field.default}`"
            if field.default is not None
            else ""
        )
        what = " ".join((field.description or "").split()).replace("|", "\\|")
        kind = kind_of(field.annotation).replace("|", "\\|")
        lines.append(f"| `{prefix}{name}` | {kind} | {default} | {what} |")
    return [*lines, ""]


def page() -> str:
    """Return the whole page."""
    lines = [INTRO, "## The run", "", *table(RunConfig, "")]
    for name in ("data", "train", "log"):
        section = RunConfig.model_fields[name].annotation
        lines += [f"## `{name}`", "", (section.__doc__ or "").strip(), "", *table(section, f"{name}.")]
    for name in task_names():
        options = load_task(name).Options
        lines += [f"## `options` of task `{name}`", "", *table(options, "options.")]
        for inner, field in options.model_fields.items():
            if section := section_of(field.annotation):
                lines += [f"## `options.{inner}` of task `{name}`", "", (section.__doc__ or "").strip(), ""]
                lines += table(section, f"options.{inner}.")
    lines += ["## `tune`", "", "How [`bertune tune`](tune.md) searches for settings.", ""]
    lines += table(TuneConfig, "tune.")
    for name, field in TuneConfig.model_fields.items():
        if is_section(field.annotation):
            section = field.annotation
            lines += [f"## `tune.{name}`", "", (section.__doc__ or "").strip(), ""]
            lines += table(section, f"tune.{name}.")
    return "\n".join(lines)


if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "config.md").write_text(page(), encoding="utf-8")
