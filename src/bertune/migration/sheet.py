"""A run file in the making: settings, a remark beside each, and what to tell the user."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bertune.config.schema import RunConfig, is_section
from bertune.config.yaml import dump_flow
from bertune.types import JSON

_WIDTH = 100


@dataclass
class Sheet:
    """Settings by their path, in the order in which they were put down."""

    values: dict[str, Any] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What does not become a setting, and why."""

    def put(self, path: str, value: Any, remark: str = "") -> None:
        """Set a setting; one that is there is replaced."""
        self.values[path] = value
        self.remarks[path] = remark

    def drop(self, path: str) -> None:
        """Take a setting away."""
        del self.values[path], self.remarks[path]

    def note(self, line: str) -> None:
        """Tell something once."""
        if line not in self.notes:
            self.notes.append(line)

    def settings(self) -> JSON:
        """Return the settings as a run file has them."""
        nested: JSON = {}
        for path in sorted(self.values, key=_place):
            value = self.values[path]
            section, _, name = path.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
        return nested

    def text(self) -> str:
        """Return the settings as YAML, with their remarks."""
        lines: list[str] = []
        for name, value in self.settings().items():
            inside = sorted((path for path in self.values if path.startswith(f"{name}.")), key=_place)
            if not inside:
                lines += self._lines(name, value, "")
                continue
            lines.append(f"{name}:")
            for path in inside:
                lines += self._lines(path, self.values[path], "  ")
        return "\n".join(lines) + "\n"

    def _lines(self, path: str, value: Any, indent: str) -> list[str]:
        line = f"{indent}{path.rpartition('.')[2]}: {dump_flow(value)}"
        remark = self.remarks[path]
        if not remark:
            return [line]
        if len(line) + 4 + len(remark) <= _WIDTH:
            return [f"{line}  # {remark}"]
        above = textwrap.wrap(
            remark, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ",
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
        return [*above, line]


def _place(path: str) -> tuple[int, int]:
    """Return the place of a setting in the schema; options stay as they were put down."""
    section, _, name = path.rpartition(".")
    names = list(RunConfig.model_fields)
    if not section:
        return names.index(name), 0
    annotation = RunConfig.model_fields[section].annotation
    inside = list(annotation.model_fields) if is_section(annotation) else []
    return names.index(section), inside.index(name) if name in inside else 0


def comment(lines: Iterable[str]) -> str:
    """Return lines as the comment at the top of a run file."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def command_lines(command: str) -> list[str]:
    """Return a command in lines that a shell reads as one."""
    lines = textwrap.wrap(
        command, _WIDTH - 8, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
    return [f"  {line}{' ' + chr(92) if number < len(lines) else ''}" for number, line in enumerate(lines, 1)]
