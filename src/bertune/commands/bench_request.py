"""What a call of `bertune bench` asks for, checked at once: sets, models and seeds to a plan."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bertune.catalog.named_set import NamedSet
from bertune.catalog.sets import SUITES, find_set, set_settings, why_not_runnable
from bertune.catalog.use import take_root
from bertune.commands.train import check_run, resolve_run
from bertune.config.bench import SUITE_ENDINGS, BenchFile, SetSource, read_bench_file, seed_fault
from bertune.config.load import apply_override, validation_messages
from bertune.config.schema import RunConfig
from bertune.errors import BertuneError, ConfigError, did_you_mean, listed
from bertune.files import expand_user
from bertune.selection.bench.plan import (
    BenchPlan,
    BenchSet,
    PublishedFigure,
    Variant,
    settings_of,
    unique_short_names,
)
from bertune.training.build import check_model
from bertune.training.launch import check_environment
from bertune.types import JSON

Note = Callable[[str], None]
_OWN_OPTIONS = {
    "model": "--model MODEL",
    "seed": "--seeds 1,2,3",
    "out": "-o OUT",
    "task": "the sets' own tasks",
}
"""Settings that a bench decides, and where."""
PREDICTED_TOO = {"glue:mnli": ("glue:mnli-mm", "glue:ax")}
"""Test rows without a training set of their own, and whose model predicts them."""


@dataclass(frozen=True)
class BenchRequest:
    """A call of `bench`, with what its file says filled in.

    Attributes:
        suite: the name of the suite.
        sources: what each set is made of, by name.
        settings: of all sets, from the file.
        root: of named sets, from the command line.
        file_root: the same, from the file.
        command: what a user types to go on.
    """

    suite: str
    sources: Mapping[str, SetSource | NamedSet]
    settings: JSON
    overrides: tuple[str, ...]
    models: tuple[str, ...]
    root: str | None
    file_root: str | None
    seeds: tuple[int, ...]
    sets: tuple[str, ...] | None
    compare: tuple[str, ...]
    out: Path
    command: str

    @classmethod
    def of(
        cls,
        source: str | Path | dict[str, Any],
        overrides: Sequence[str],
        models: Sequence[str | Path],
        root: str | Path | None,
        seeds: Sequence[int] | str | None,
        sets: Sequence[str] | str | None,
        compare: Sequence[str],
        out: str | Path | None,
    ) -> BenchRequest:
        """Read a suite, and check what is given beside it.

        Raises:
            ConfigError: all that is wrong, in one message.
        """
        suite, sources, file = _read_source(source)
        faults: list[str] = []
        chosen_seeds = file.seeds if seeds is None else _parse_seeds(seeds, faults)
        given = [expand_user(m) for m in ([models] if isinstance(models, str | Path) else models)]
        given = given or list(file.models)
        settings, further = _divide_compare(compare)
        data_root, _ = take_root(overrides)
        if root is not None and data_root is not None:
            faults.append(f"data.root={data_root}: --root {root} is given too; leave one of them out")
        request = cls(
            suite,
            sources,
            file.settings,
            tuple(overrides),
            tuple(given + further),
            data_root if root is None else expand_user(root),
            file.root,
            tuple(chosen_seeds),
            _chosen(sets, sources, suite, faults),
            tuple(settings),
            Path(expand_user(out)) if out is not None else Path("runs") / f"bench-{suite.replace(':', '-')}",
            _command(source, overrides, models, root, seeds, sets, compare, out),
        )
        faults += request._faults()
        if faults:
            raise ConfigError(faults[0] if len(faults) == 1 else "\n".join(faults))
        return request

    def _faults(self) -> list[str]:
        """Return what is wrong with models and settings."""
        faults = []
        for override in self.overrides:
            name = override.partition("=")[0].strip()
            if name in _OWN_OPTIONS:
                faults.append(f"{override}: a bench decides this; give {_OWN_OPTIONS[name]}")
            elif "=" not in override:
                faults.append(
                    f"{override!r} is not a setting; write section.name=value, such as train.epochs=3. "
                    "To run some sets: --sets NAME,NAME"
                )
        places: dict[str, str] = {}
        for model in self.models:
            place = os.path.realpath(model) if Path(model).exists() else model
            if place in places:
                faults.append(f"--model: {model!r} is given twice; give different models")
            places[place] = model
        for text in self.compare:
            names = [word.partition("=")[0] for word in shlex.split(text)]
            faults += [f"--compare {text}: {n}: give {_OWN_OPTIONS[n]}" for n in names if n in _OWN_OPTIONS]
        if len(set(self.compare)) < len(self.compare):
            faults.append(f"--compare: names {listed(self.compare)}, the same settings twice")
        if self.compare and len(self.models) > 1:
            faults.append(
                f"--compare: settings are compared for one model, got {listed(self.models)}; compare models "
                "or settings"
            )
        return faults


def _read_source(
    source: str | Path | dict[str, Any],
) -> tuple[str, Mapping[str, SetSource | NamedSet], BenchFile]:
    """Return the name of a suite, its sets and what its file says.

    Raises:
        ConfigError: there is no such suite, or the file cannot be used.
    """
    nothing = BenchFile(sets={"-": "-"})
    if isinstance(source, dict):
        try:
            file = BenchFile.model_validate(source)
        except ValidationError as error:
            raise ConfigError("\n".join(validation_messages(error, BenchFile, ()))) from None
        return "suite", file.sets, file
    name = expand_user(source)
    if Path(name).suffix in SUITE_ENDINGS:
        file = read_bench_file(name)
        return Path(name).stem, file.sets, file
    if name in SUITES:
        return name, {each.full_name: each for each in SUITES[name]}, nothing
    if name.partition(":")[0] in SUITES and ":" in name:
        named = find_set(name)
        return name, {named.full_name: named}, nothing
    place = "; a folder is none" if Path(name).is_dir() else did_you_mean(name, SUITES)
    raise ConfigError(
        f"{name!r} is no suite{place}; suites: {', '.join(SUITES)}; or give a named set such as "
        "glue:cola, or a file with a suite (.yaml)"
    )


def _parse_seeds(seeds: Sequence[int] | str, faults: list[str]) -> list[int]:
    words = [word.strip() for word in seeds.split(",")] if isinstance(seeds, str) else list(seeds)
    numbers: list[int] = []
    for word in words:
        if isinstance(word, bool) or not str(word).isdecimal() or int(word) >= 2**32:
            if word == "" and len(words) == 1:
                break
            faults.append(f"--seeds: must be whole numbers from 0 to {2**32 - 1} as 1,2,3, got {word!r}")
            return [0]
        numbers.append(int(word))
    if fault := seed_fault(numbers):
        faults.append(f"--seeds: {fault}")
    return numbers


def _chosen(
    sets: Sequence[str] | str | None, sources: Mapping[str, Any], suite: str, faults: list[str]
) -> tuple[str, ...] | None:
    """Return the full names of the sets that are chosen, in the order of the suite; None for all."""
    if sets is None:
        return None
    words = [word.strip() for word in sets.split(",")] if isinstance(sets, str) else [str(s) for s in sets]
    short = {name.partition(":")[2] or name: name for name in sources}
    found = []
    for word in words:
        name = word if word in sources else short.get(word)
        if name is None:
            guess = did_you_mean(word, [*short, *sources])
            faults.append(f"--sets: {suite} has no set {word!r}{guess}; sets: {', '.join(short)}")
        elif name in found:
            faults.append(f"--sets: names {word!r} twice")
        else:
            found.append(name)
    return tuple(name for name in sources if name in found)


def _divide_compare(compare: Sequence[str] | str) -> tuple[list[str], list[str]]:
    """Return the settings and the models that are to be compared with the base."""
    texts = [compare] if isinstance(compare, str) else list(compare)
    return [t for t in texts if "=" in t], [expand_user(t) for t in texts if "=" not in t]


def _command(source: object, overrides: Sequence[str], *options: Any) -> str:
    """Return the command that goes on with a bench; of a call from Python without a file, a hint."""
    if isinstance(source, dict):
        return "bertune.bench(...) with the same arguments"
    models, root, seeds, sets, compare, out = options
    models = [models] if isinstance(models, str | Path) else models
    compare = [compare] if isinstance(compare, str) else compare
    words = ["bertune", "bench", str(source), *overrides]
    words += [word for model in models for word in ("--model", str(model))]
    words += ["--root", str(root)] if root is not None else []
    for name, value in (("--seeds", seeds), ("--sets", sets)):
        if value is not None:
            words += [name, value if isinstance(value, str) else ",".join(map(str, value))]
    words += [word for text in compare for word in ("--compare", text)]
    words += ["-o", str(out)] if out is not None else []
    return shlex.join(words)


def make_plan(request: BenchRequest, note: Note) -> BenchPlan:
    """Return what is to be run; settings and models of all runs are checked.

    Raises:
        BertuneError: something cannot be used; all that is wrong is named.
    """
    names = request.sets if request.sets is not None else tuple(request.sources)
    faults: list[str] = []
    sets = tuple(s for name in names if (s := _make_set(request, name, faults)) is not None)
    _raise(faults)
    if request.sets is None:
        sets = _without_same_training(sets)
    if all(each.why_not for each in sets):
        reasons = "".join(f"\n- {each.name}: {each.why_not}" for each in sets)
        raise ConfigError(f"bench: no set can be run:{reasons}")
    variants = _variants(request, [each for each in sets if not each.why_not])
    plan = BenchPlan(request.suite, request.out, sets, variants, request.seeds, len(request.sources))
    plan.check_names()
    _check_runs(plan, note)
    return plan


def _without_same_training(sets: Sequence[BenchSet]) -> tuple[BenchSet, ...]:
    """Leave out sets that train on the files of an earlier one, as the second half of MNLI does."""
    first_of: dict[str, str] = {}
    found = []
    for each in sets:
        files = json.dumps([each.settings.get("task"), each.settings.get("data", {}).get("train")])
        first = first_of.setdefault(files, each.name) if each.boards and not each.why_not else each.name
        if first != each.name:
            reason = f"trains on the rows of {first}; name both in --sets to run it too"
            each = BenchSet(each.name, why_not=reason, published=each.published)
        found.append(each)
    return tuple(found)


def _make_set(request: BenchRequest, name: str, faults: list[str]) -> BenchSet | None:
    """Return a set with all its settings; None where it is wrong."""
    try:
        return _set_of(request, name)
    except ConfigError as error:
        text = str(error)
        faults.append(text if text.startswith(name) else f"set {name}: {text}")
        return None


def _set_of(request: BenchRequest, name: str) -> BenchSet:
    source = request.sources[name]
    own: JSON = {}
    if isinstance(source, dict):
        own = dict(source)
        source = own.pop("set", "")
        if source and "task" in own:
            raise ConfigError("task: comes from `set`; leave one of them out")
    named = find_set(source) if isinstance(source, str) and source else source
    if not isinstance(named, NamedSet):
        return BenchSet(name, _merged({}, request, own))
    root = _root_of(request, own)
    published = tuple(PublishedFigure(p.model, p.metric, p.value, p.split, p.source) for p in named.published)
    if reason := why_not_runnable(named, root):
        return BenchSet(name, why_not=reason, published=published)
    settings = set_settings(named, root, lambda _: None)
    own_board = (named.full_name,) if named.leaderboard is not None else ()
    boards = (*own_board, *PREDICTED_TOO.get(named.full_name, ()))
    notes = (f"{name}: {named.trap}",) if named.trap else ()
    return BenchSet(
        name,
        _merged(settings, request, own),
        published=published,
        notes=notes,
        boards=boards,
        root=root,
    )


def _root_of(request: BenchRequest, own: JSON) -> str | None:
    """Return where the files of a named set are: what the command line says, the set, all sets, the file."""
    sections = [layer.get("data") for layer in (own, request.settings)]
    roots = [data["root"] for data in sections if isinstance(data, dict) and data.get("root")]
    return request.root or next((expand_user(str(root)) for root in roots), request.file_root)


def _merged(settings: JSON, request: BenchRequest, own: JSON) -> JSON:
    """Return the settings of a named set, then those of all sets, of this set, and of the command line.

    The files of a named set are whole names already, so nothing is put before them.
    """
    merged: JSON = json.loads(json.dumps(settings))  # tuples become lists, as they are read back
    for layer in (request.settings, own):
        merged = _deep_merge(merged, layer)
    overrides = take_root(request.overrides)[1] if settings else request.overrides
    if settings and isinstance(merged.get("data"), dict):
        merged["data"].pop("root", None)
    for override in overrides:
        apply_override(merged, override)
    return merged


def _deep_merge(below: JSON, above: JSON) -> JSON:
    """Return nested settings with those of `above` in the place of those below.

    >>> _deep_merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict) and name != "columns"
        merged[name] = _deep_merge(merged[name], value) if both else value
    return merged


def _variants(request: BenchRequest, sets: Sequence[BenchSet]) -> tuple[Variant, ...]:
    """Return the models, or the model with each of the settings to compare.

    Raises:
        ConfigError: no model is given.
    """
    given: list[tuple[str, tuple[str, ...]]]
    if request.models:
        names = unique_short_names(request.models)
        given = [(name, (f"model={path}",)) for name, path in zip(names, request.models, strict=True)]
    else:
        own = [each.settings.get("model") for each in sets]
        if None in own:
            lacks = [each.name for each in sets if "model" not in each.settings]
            raise ConfigError(
                f"bench: needs an encoder for {listed(lacks)}: --model MODEL "
                "(a folder, a Hub id, minilm or e5-small)"
            )
        names = unique_short_names([str(own[0])]) if len(set(map(str, own))) == 1 else ["own models"]
        given = [(names[0], ())]
    variants = [Variant(name, overrides) for name, overrides in given]
    for text in request.compare:
        variants.append(Variant(" ".join(shlex.split(text)), (*given[0][1], *shlex.split(text))))
    return tuple(variants)


def _check_runs(plan: BenchPlan, note: Note) -> None:
    """Check the settings of every set with every variant, and every model.

    Raises:
        BertuneError: some are wrong; each fault is named once.
    """
    where: dict[str, list[str]] = {}
    runs: list[RunConfig] = []
    notes: dict[str, None] = {}
    for data in plan.runnable:
        for variant in plan.variants:
            try:
                settings = settings_of(data, variant, plan.seeds[0])
                run, task = resolve_run(settings, [], lambda line: notes.setdefault(line))
                check_run(run, task)
                _refuse_stdin(run)
                runs.append(run)
            except BertuneError as error:
                where.setdefault(str(error), []).append(data.name)
    _raise([f"{_places(names, plan)}: {fault}" for fault, names in where.items()])
    for line in notes:
        note(line)
    models: dict[str, None] = {}
    for run in runs:
        check_environment(run)
        if run.model not in models:
            models[run.model] = None
            check_model(run)


def _places(names: Sequence[str], plan: BenchPlan) -> str:
    """Say of which sets something is wrong."""
    found = list(dict.fromkeys(names))
    return "all sets" if len(found) == len(plan.runnable) > 1 else f"set {', '.join(found)}"


def _refuse_stdin(run: RunConfig) -> None:
    for split in ("train", "dev", "test"):
        files = getattr(run.data, split)
        if "-" in ([files] if isinstance(files, str) else files or []):
            raise ConfigError(f"data.{split}: standard input cannot be read once for each run; give a file")


def _raise(faults: Sequence[str]) -> None:
    if faults:
        raise ConfigError(faults[0] if len(faults) == 1 else "\n".join(faults))
