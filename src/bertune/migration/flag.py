"""A flag of another program: what it is there, what it is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bertune.errors import ConfigError, did_you_mean

Status = Literal["setting", "command", "not needed", "not available"]
Kind = Literal["text", "int", "float", "switch", "bool", "list"]
"""`switch` takes no value, `bool` may take one, `list` takes any number."""


@dataclass(frozen=True)
class Flag:
    """A flag, or a field of an argument class, and its place in bertune."""

    name: str
    """Without dashes, words joined by "_"."""
    default: Any = None
    """Its value where it is not given, there."""
    settings: tuple[str, ...] = ()
    """The settings that it decides here, such as train.batch_size."""
    note: str = ""
    """How the value is converted, how the behaviour differs, or why there is nothing like it."""
    status: Status = "setting"
    """`command`: part of the command line here, not of the run file."""
    here: str = ""
    """What stands for it on the command line, for `command`."""
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    required: bool = False
    default_text: str = ""
    """The default in words, where a value does not say it."""
    version: str = ""
    """Where not every version has it: "v4" of transformers, say."""

    @property
    def default_there(self) -> str:
        """Return the default for a table."""
        if self.required:
            return "required"
        if self.default_text:
            return self.default_text
        return "off" if self.default is False else "on" if self.default is True else _number(self.default)


def _number(value: Any) -> str:
    return "" if value is None else repr(value).replace("e-0", "e-").strip("'")


def _kind(default: Any) -> Kind:
    kinds: dict[type, Kind] = {bool: "switch", int: "int", float: "float", list: "list"}
    return kinds.get(type(default), "text")


def setting(name: str, default: Any, settings: str | Sequence[str], note: str = "", **more: Any) -> Flag:
    """Return a flag that decides one setting, or several."""
    names = (settings,) if isinstance(settings, str) else tuple(settings)
    return Flag(name, default, names, note, **{"kind": _kind(default), **more})


def command(name: str, default: Any, here: str, note: str = "", **more: Any) -> Flag:
    """Return a flag that is part of the command line here."""
    return Flag(
        name, default, (), note, **{"kind": _kind(default), "status": "command", "here": here, **more}
    )


def needless(name: str, default: Any, why: str, **more: Any) -> Flag:
    """Return a flag of which nobody here has need."""
    return Flag(name, default, (), why, **{"kind": _kind(default), "status": "not needed", **more})


def missing(name: str, default: Any, why: str, **more: Any) -> Flag:
    """Return a flag of something that bertune does not do."""
    return Flag(name, default, (), why, **{"kind": _kind(default), "status": "not available", **more})


_MOST_LISTED = 40


@dataclass(frozen=True)
class Values:
    """The values of the flags of a command."""

    flags: Mapping[str, Flag]
    given: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """Return what was given, else the default there."""
        return self.given[name] if name in self.given else self.flags[name].default

    def has(self, name: str) -> bool:
        """Tell whether a flag exists and was given."""
        return name in self.given

    def get(self, name: str) -> Any:
        """Return a value; None where the program has no such flag."""
        return self[name] if name in self.flags else None


def read_values(
    arguments: Sequence[str], flags: Sequence[Flag], script: str, more: Mapping[str, Any] | None = None
) -> Values:
    """Read the arguments of a program.

    Args:
        arguments: the words after the script.
        flags: all that the script has.
        script: its name, for messages.
        more: values by name, such as a JSON file has them.

    Raises:
        ConfigError: a flag is unknown, its value does not fit, or one that is required is absent.
    """
    by_name = {flag.name: flag for flag in flags}
    given: dict[str, Any] = {
        _find(name, by_name, script).name: _converted(_find(name, by_name, script), value)
        for name, value in (more or {}).items()
    }
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"{script}: {word!r} belongs to no flag; write --NAME {word}")
        name, equals, text = word[2:].partition("=")
        flag = _find(name, by_name, script)
        given[flag.name] = _read_value(flag, text if equals else None, words)
    absent = [f"--{flag.name}" for flag in flags if flag.required and flag.name not in given]
    if absent:
        raise ConfigError(f"{script}: {', '.join(absent)} must be given, as {script} itself asks for it")
    return Values(by_name, given)


def _find(name: str, flags: Mapping[str, Flag], script: str) -> Flag:
    """Return the flag of a name, or of the beginning of one name alone, as argparse does."""
    wanted = name.replace("-", "_")
    if wanted in flags:
        return flags[wanted]
    positive = wanted.removeprefix("no_")
    if positive != wanted and positive in flags and flags[positive].kind == "bool":
        raise ConfigError(f"{script}: write --{positive} false for --{name}")
    starts = [flag for key, flag in flags.items() if key.startswith(wanted)]
    if len(starts) == 1 and wanted:
        return starts[0]
    if len(starts) > 1 and wanted:
        names = ", ".join(f"--{flag.name}" for flag in starts)
        raise ConfigError(f"{script}: --{name} is the beginning of {names}; write one of them")
    nearest = did_you_mean(f"--{wanted}", [f"--{key}" for key in flags])
    few = f"; its flags: {', '.join(f'--{key}' for key in flags)}" if len(flags) <= _MOST_LISTED else ""
    raise ConfigError(f"{script}: has no flag --{name}{nearest}{few}")


def _read_value(flag: Flag, text: str | None, words: list[str]) -> Any:
    """Return the value of a flag; take its words off those that follow."""
    if flag.kind == "switch":
        if text is not None:
            raise ConfigError(f"--{flag.name}: takes no value, got {text!r}; write it alone, or leave it out")
        return True
    if flag.kind == "list":
        values = [] if text is None else [text]
        while text is None and words and not words[0].startswith("--"):
            values.append(words.pop(0))
        return values
    if text is None and words and not words[0].startswith("--"):
        text = words.pop(0)
    if text is None:
        if flag.kind == "bool":
            return True
        raise ConfigError(f"--{flag.name}: has no value; write --{flag.name} VALUE")
    return _converted(flag, text)


def _converted(flag: Flag, value: Any) -> Any:
    """Return a value in the type of the flag.

    Raises:
        ConfigError: it has another one, or is none of the choices.
    """
    text = str(value).strip()
    if value is None or value in ([], {}, ""):
        return None
    if isinstance(value, dict) or (isinstance(value, list) and flag.kind == "list"):
        return value
    if flag.kind in {"bool", "switch"}:
        known = {"true": True, "1": True, "yes": True, "t": True, "y": True}
        known |= {"false": False, "0": False, "no": False, "f": False, "n": False}
        if text.lower() not in known:
            raise ConfigError(f"--{flag.name}: {text!r} is neither true nor false")
        return known[text.lower()]
    if flag.kind in {"int", "float"}:
        try:
            number = float(text)
        except ValueError:
            raise ConfigError(f"--{flag.name}: {text!r} is not a number") from None
        if flag.kind == "int" and not number.is_integer():
            raise ConfigError(f"--{flag.name}: {text!r} is not a whole number")
        return int(number) if flag.kind == "int" else number
    if flag.choices and text not in flag.choices:
        allowed = ", ".join(flag.choices)
        raise ConfigError(
            f"--{flag.name}: {text!r} is none of {allowed}{did_you_mean(text, list(flag.choices))}"
        )
    return [text] if flag.kind == "list" else text
