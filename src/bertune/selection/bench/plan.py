"""What a bench runs: sets, models and seeds as data; and whether a folder holds the same bench."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertune.config.load import apply_override
from bertune.errors import ConfigError, listed
from bertune.files import expand_user, read_json_object, sha256, write_json
from bertune.types import JSON

PLAN = "plan.json"
RUNS = "runs"


@dataclass(frozen=True)
class PublishedFigure:
    """What others have reported of a set."""

    model: str
    metric: str
    value: float
    split: str = "dev"
    source: str = ""

    def to_json(self) -> JSON:
        """Return the figure as JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class BenchSet:
    """A data set of a bench.

    Attributes:
        name: such as glue:cola.
        settings: of its runs, without model, seed and folder.
        why_not: why it cannot be run; empty if it can.
        published: figures of others.
        notes: what a user should know about it.
        boards: the named sets whose test rows its model predicts for a leaderboard, itself first.
        root: where the files of the named set are; None for the Hub.
    """

    name: str
    settings: JSON = field(default_factory=dict)
    why_not: str = ""
    published: tuple[PublishedFigure, ...] = ()
    notes: tuple[str, ...] = ()
    boards: tuple[str, ...] = ()
    root: str | None = None


@dataclass(frozen=True)
class Variant:
    """A model, or a change of settings, that all sets are run with.

    Attributes:
        name: short, and different from the others'.
        overrides: `section.name=value`, after all other settings.
    """

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchRun:
    """One training: a set, a variant and a seed; its files in the folder of the bench."""

    out: Path
    data: BenchSet
    variant: Variant
    seed: int

    @property
    def settings(self) -> JSON:
        """The settings of the run, nested."""
        return settings_of(self.data, self.variant, self.seed) | {"out": str(self.folder)}

    @property
    def files(self) -> dict[str, str]:
        """The SHA-256 of each data file that is here, by its name."""
        data = self.settings.get("data") or {}
        names: list[str] = []
        for split in ("train", "dev", "test"):
            given = data.get(split) or []
            names += [given] if isinstance(given, str) else given
        paths = [Path(expand_user(data.get("root") or ""), expand_user(name)) for name in names]
        return {str(path): _sha256(str(path), path.stat().st_mtime_ns) for path in paths if path.is_file()}

    @property
    def folder(self) -> Path:
        """Where it trains."""
        names = file_name(self.variant.name), file_name(self.data.name), f"seed-{self.seed}"
        return Path(self.out, RUNS, *names)

    @property
    def record(self) -> Path:
        """The file that says what it came to."""
        return self.folder.with_name(f"seed-{self.seed}.json")

    @property
    def predictions(self) -> Path:
        """The file with its predictions of the dev rows."""
        return self.folder.with_name(f"seed-{self.seed}.predictions.jsonl.gz")

    @property
    def submission(self) -> Path:
        """The folder with the file for a leaderboard."""
        return self.folder.with_name(f"seed-{self.seed}.submission")

    @property
    def log(self) -> Path:
        """The file with what it wrote on standard error."""
        return self.folder.with_name(f"seed-{self.seed}.log")

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return f"{self.data.name}, {self.variant.name}, seed {self.seed}"


@functools.cache
def _sha256(path: str, changed: int) -> str:
    del changed  # part of the key: a file that has changed is read again
    return sha256(path)


def settings_of(data: BenchSet, variant: Variant, seed: int) -> JSON:
    """Return the settings of a run of a set, without its folder."""
    settings = copy.deepcopy(data.settings)
    for override in variant.overrides:
        apply_override(settings, override)
    return settings | {"seed": seed}


def file_name(name: str) -> str:
    """Return a name as one of a folder.

    >>> file_name("glue:cola"), file_name("../x y"), file_name("情感")
    ('glue-cola', 'x-y', '情感')
    """
    return re.sub(r"[^\w.=+-]+", "-", name).strip("-.") or "-"


@dataclass(frozen=True)
class BenchPlan:
    """All that a bench runs.

    Attributes:
        suite: its name.
        out: its folder.
        sets: those that can be run and those that cannot.
        variants: models, or settings; from two on they are compared.
        seeds: each set is trained with each of them.
        size: how many sets the suite has, those that were not chosen included.
    """

    suite: str
    out: Path
    sets: tuple[BenchSet, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    size: int

    @property
    def runnable(self) -> list[BenchSet]:
        """The sets that can be run."""
        return [data for data in self.sets if not data.why_not]

    def runs(self) -> Iterator[BenchRun]:
        """Yield the runs in their order: a set after the other, and of a set a seed after the other."""
        for data in self.runnable:
            for seed in self.seeds:
                for variant in self.variants:
                    yield BenchRun(self.out, data, variant, seed)

    def run_of(self, data: BenchSet, variant: Variant, seed: int) -> BenchRun:
        """Return one run."""
        return BenchRun(self.out, data, variant, seed)

    def check_names(self) -> None:
        """Check that no two sets or variants share a folder.

        Raises:
            ConfigError: two do.
        """
        for kind, names in (
            ("sets", [s.name for s in self.sets]),
            ("models", [v.name for v in self.variants]),
        ):
            folders: dict[str, str] = {}
            for name in names:
                other = folders.setdefault(file_name(name).casefold(), name)
                if other != name:
                    raise ConfigError(
                        f"{kind}: {other!r} and {name!r} would share a folder; give one another name"
                    )

    def to_json(self) -> JSON:
        """Return what decides the numbers, as JSON values."""
        return {
            "suite": self.suite,
            "sets": {data.name: data.settings for data in self.runnable},
            "models": {variant.name: list(variant.overrides) for variant in self.variants},
            "seeds": list(self.seeds),
        }


def check_plan(plan: BenchPlan) -> bool:
    """Check that a folder holds this bench, or nothing.

    A bench may grow: sets, models and seeds that are new are run beside those that are there.

    Returns:
        Whether it was begun before.

    Raises:
        ConfigError: the folder holds something else, or the bench had other settings.
    """
    out = plan.out
    if not out.exists() or (out.is_dir() and not any(path.name != PLAN + ".part" for path in out.iterdir())):
        return False
    before = read_json_object(out / PLAN) if out.is_dir() else {}
    if not {"sets", "models", "seeds"} <= before.keys():
        raise ConfigError(f"-o {out}: is not empty and holds no bench; give another folder")
    now = plan.to_json()
    changed = _lost(before, now) + [
        f"{where} of {name!r} was {old!r}, is {new!r}"
        for kind in ("sets", "models")
        for name in before[kind].keys() & now[kind].keys()
        for where, old, new in _differences(kind, before[kind][name], now[kind][name])
    ]
    if changed:
        raise ConfigError(
            f"-o {out}: holds a bench with other settings: {'; '.join(changed)}. Restore them, or give "
            "another folder (-o)"
        )
    return True


def _lost(before: JSON, now: JSON) -> list[str]:
    """Name what was run and is not asked for now: the table would not be that of the folder."""
    kinds = (("sets", "--sets"), ("models", "--model or --compare"), ("seeds", "--seeds"))
    return [
        f"{option}: {listed(gone)} was run there before and is not named now"
        for kind, option in kinds
        if (gone := [name for name in before[kind] if name not in now[kind]])
    ]


def _differences(kind: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if kind == "models":
        return [("settings", old, new)] if old != new else []
    return differing_settings(old, new)


def differing_settings(old: JSON, new: JSON, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return the settings that differ: full name, old value, new value.

    >>> differing_settings({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    [('a.c', 2, 3)]
    """
    found: list[tuple[str, Any, Any]] = []
    for name in sorted(old.keys() | new.keys()):
        left, right = old.get(name), new.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            found += differing_settings(left, right, f"{prefix}{name}.")
        elif left != right:
            found.append((prefix + name, left, right))
    return found


def write_plan(plan: BenchPlan) -> None:
    """Write the plan into its folder.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        write_json(plan.out / PLAN, plan.to_json())
    except OSError as error:
        raise ConfigError(f"-o {plan.out}: cannot be written: {error.strerror or error}") from None


def unique_short_names(names: Sequence[str]) -> list[str]:
    """Return the last part of each path, or as many parts as tell them apart.

    >>> unique_short_names(["runs/a/last", "runs/b/last"]), unique_short_names(["minilm"])
    (['a/last', 'b/last'], ['minilm'])
    """
    parts = [name.rstrip("/").split("/") for name in names]
    for count in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(path[-count:]) for path in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)
