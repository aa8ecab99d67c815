"""`bertune sets`: the data sets that have a name, and what of them is in a folder."""

from __future__ import annotations

from pathlib import Path

from bertune.catalog.local import find_files
from bertune.catalog.named_set import SPLITS, NamedSet
from bertune.catalog.sets import SUITES, find_set, why_not_runnable
from bertune.console import aligned
from bertune.errors import ConfigError, did_you_mean
from bertune.files import expand_user
from bertune.types import JSON


def list_sets(names: list[str], root: str | Path | None = None) -> list[JSON]:
    """Describe named sets.

    Args:
        names: suites, or names of sets such as glue:cola; none for all.
        root: a folder to look for their files.

    Raises:
        ConfigError: a name is not known, or the folder is none.
    """
    folder = None if root is None else Path(expand_user(root))
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--root: {str(root)!r} is no folder")
    return [_describe(named_set, folder) for named_set in _chosen(names)]


def _chosen(names: list[str]) -> list[NamedSet]:
    chosen: list[NamedSet] = []
    for name in names or list(SUITES):
        if name in SUITES:
            chosen += SUITES[name]
        elif ":" in name:
            chosen.append(find_set(name))
        else:
            known = ", ".join(SUITES)
            raise ConfigError(f"{name!r} is no suite{did_you_mean(name, SUITES)}; suites: {known}")
    return chosen


def _describe(named_set: NamedSet, root: Path | None) -> JSON:
    described: JSON = {
        "name": named_set.full_name,
        "title": named_set.title,
        "task": named_set.task,
        "metric": named_set.metric,
        "train_rows": named_set.train_rows or None,
        "dev_rows": named_set.dev_rows or None,
        "labels": list(named_set.labels) or None,
        "trap": named_set.trap or None,
        "hub": named_set.hub.train or named_set.hub.test if named_set.hub else None,
        "modelscope": named_set.modelscope.train if named_set.modelscope else None,
        "leaderboard": named_set.leaderboard.file_name if named_set.leaderboard else None,
        "published": [vars(figure) for figure in named_set.published],
    }
    if root is not None:
        found = find_files(named_set, root)
        described["folder"] = str(found.folder) if found else None
        described["files"] = {s: str(found.path(s)) for s in SPLITS if found.has(s)} if found else {}
        described["why_not"] = why_not_runnable(named_set, root) or None
    return described


def set_lines(described: list[JSON]) -> list[str]:
    """Return the table of some sets, or all that is known of a single one."""
    if len(described) == 1:
        return _one_set(described[0])
    has_root = "folder" in described[0]
    header = ["set", "task", "metric", "train", "dev", *(["here"] if has_root else [])]
    rows = [
        [
            one["name"],
            one["task"],
            one["metric"],
            *(f"{one[rows]:,}" if one[rows] else "-" for rows in ("train_rows", "dev_rows")),
            *([" ".join(one["files"]) or "-"] if has_root else []),
        ]
        for one in described
    ]
    return aligned(header, rows)


def _one_set(one: JSON) -> list[str]:
    counts = [f"{one[f'{split}_rows']:,} {split}" for split in ("train", "dev") if one[f"{split}_rows"]]
    facts = {
        "task": one["task"],
        "metric": one["metric"],
        "rows": ", ".join(counts),
        "labels": ", ".join((one["labels"] or [])[:20]) + (", ..." if len(one["labels"] or []) > 20 else ""),
        "note": one["trap"],
        "hub": one["hub"],
        "modelscope": one["modelscope"],
        "leaderboard": one["leaderboard"],
        **{f"{split} file": path for split, path in one.get("files", {}).items()},
        "missing": one.get("why_not"),
    }
    lines = [
        f"{one['name']}: {one['title']}",
        *(f"  {name}: {value}" for name, value in facts.items() if value),
    ]
    if one["published"]:
        lines.append("  published:")
        for figure in one["published"]:
            note = f" ({figure['note']})" if figure["note"] else ""
            what = f"{figure['value']:g} {figure['metric']}, {figure['split']}"
            lines.append(f"    {figure['model']}: {what}; {figure['source']}{note}")
    return lines
