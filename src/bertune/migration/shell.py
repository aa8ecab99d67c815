"""The words of a command line, as a shell reads them: quotes, variables, comments, lines that go on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bertune.errors import ConfigError

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")
_REMARK = re.compile(r"[(（](?:optional|可选)[)）]")
_LINE_GOES_ON = re.compile(r"[\\`^][ \t]*\r?\n")
_FENCE = re.compile(r"^[ \t]*(?:```.*|%%\w+.*)$", re.MULTILINE)
_PROMPT = re.compile(r"^[ \t]*(?:[$!%][ \t]*(?=[A-Za-z./]))", re.MULTILINE)
_REDIRECTION = re.compile(r"\d?[<>]+&?[ \t]*[^\s;&|]*")
_FLAG_FOLLOWS = re.compile(r"\s+--[A-Za-z]")
"""A line that begins with a flag goes on with the one before, whose backslash got lost."""
_EXPORTED = ("CUDA_", "HF_", "NCCL_", "MASTER_", "OMP_")


@dataclass(frozen=True)
class Command:
    """One command: its words, and what the shell sets for it."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables before the command, and exported ones of CUDA, of the Hub and of launchers."""
    notes: tuple[str, ...] = ()


def read_command(text: str) -> Command:
    r"""Return the command of a text that runs a Python script.

    >>> read_command("N=2\nCUDA_VISIBLE_DEVICES=0,1 python a.py --n=$N \\\n --x 'a b'  # tried").words
    ('python', 'a.py', '--n=2', '--x', 'a b')

    Raises:
        ConfigError: there is no such command, or there are several; a quote does not end; a variable is
            unknown.
    """
    commands: list[Command] = []
    notes: list[str] = []
    variables: dict[str, str] = {}
    exported: dict[str, str] = {}
    for words in _Reader(_cleaned(text), variables).commands():
        assigned = _leading_assignments(words)
        rest = words[len(assigned) :]
        if not rest or rest[0] == "export":
            found = assigned | _leading_assignments(rest[1:])
            variables.update(found)
            exported |= {name: value for name, value in found.items() if name.startswith(_EXPORTED)}
        elif any(word.endswith(".py") for word in rest):
            commands.append(Command(tuple(_without(rest, "nohup")), {**exported, **assigned}))
        else:
            notes.append(f"{' '.join(rest)!r}: not part of the command that is converted")
    if not commands:
        raise ConfigError(
            "there is no command with a Python script, such as 'python run_glue.py --FLAG VALUE'"
        )
    if len(commands) > 1:
        scripts = ", ".join(next(w for w in c.words if w.endswith(".py")) for c in commands)
        raise ConfigError(f"there are {len(commands)} commands ({scripts}); convert them one at a time")
    return Command(commands[0].words, commands[0].environment, tuple(notes))


def _cleaned(text: str) -> str:
    """Return a text without what pages put around commands."""
    text = _LINE_GOES_ON.sub(" ", _FENCE.sub("", text))
    return _PROMPT.sub("", _REMARK.sub("", text))


def _leading_assignments(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        match = _ASSIGNMENT.fullmatch(word)
        if match is None:
            break
        found[match[1]] = match[2]
    return found


def _without(words: list[str], name: str) -> list[str]:
    return words[1:] if words[:1] == [name] else words


class _Reader:
    """Cuts a text into commands, and these into words.

    Args:
        text: what a shell would read.
        variables: known ones; may grow between two commands.
    """

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self.text, self.at, self.variables = text, 0, variables

    def commands(self) -> Iterator[list[str]]:
        """Yield the words of each command; variables may be set in between."""
        while self.at < len(self.text):
            if words := self._next_command():
                yield words

    def _next_command(self) -> list[str]:
        words: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in "\n;&|" and not _FLAG_FOLLOWS.match(self.text, self.at):
                self.at += 1
                return words
            if char.isspace():
                self.at += 1
            elif char == "#":
                self._to_end_of_line()
            elif redirection := _REDIRECTION.match(self.text, self.at):
                self.at = redirection.end()
            else:
                words.append(self._word())
        return words

    def _to_end_of_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _word(self) -> str:
        parts: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char.isspace() or char in ";&|<>":
                break
            if char in "'\"":
                parts.append(self._quoted(char))
            elif char == "\\":
                parts.append(self.text[self.at + 1 : self.at + 2])
                self.at += 2
            elif char == "$":
                parts.append(self._variable())
            else:
                parts.append(char)
                self.at += 1
        return "".join(parts)

    def _quoted(self, quote: str) -> str:
        begin = self.at
        parts: list[str] = []
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == quote:
                self.at += 1
                return "".join(parts)
            if quote == '"' and char == "\\" and self.text[self.at + 1 : self.at + 2] in {'"', "\\", "$"}:
                parts.append(self.text[self.at + 1])
                self.at += 2
            elif quote == '"' and char == "$":
                parts.append(self._variable())
            else:
                parts.append(char)
                self.at += 1
        raise ConfigError(f"the quote {self.text[begin : begin + 20]!r} does not end")

    def _variable(self) -> str:
        match = _VARIABLE.match(self.text, self.at)
        if match is None:
            if self.text[self.at : self.at + 2] == "$(":
                raise ConfigError("the command asks the shell with $(...); write what that prints instead")
            self.at += 1
            return "$"
        name = match[1] or match[2]
        if name not in self.variables:
            raise ConfigError(
                f"the command uses ${name}, which nothing sets; put {name}=VALUE on a line before"
            )
        self.at = match.end()
        return self.variables[name]
