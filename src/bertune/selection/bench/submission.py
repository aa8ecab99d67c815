"""Predictions of unlabelled test rows as leaderboards take them: of each set those of its best seed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from bertune.catalog.sets import SUITES
from bertune.errors import ConfigError
from bertune.files import remove_folder, unique_part_of, write_bytes
from bertune.selection.bench.plan import BenchRun, Variant, file_name
from bertune.selection.bench.records import RunRecord, read_record
from bertune.selection.bench.result import BenchResult, SetResult

SUBMISSION = "submission"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of the files of an archive: the same predictions are the same bytes."""


def best_seed(records: dict[int, RunRecord]) -> int | None:
    """Return the seed with the best dev score, the first of equal ones; None where none has one."""
    found: int | None = None
    for seed, record in records.items():
        score = record.scores.get("dev")
        if score is None:
            continue
        best = None if found is None else records[found].scores["dev"].main_value
        is_better = best is None or (
            score.main_value > best if score.higher_is_better else score.main_value < best
        )
        found = seed if is_better else found
    return found


def write_submissions(result: BenchResult, note: Callable[[str], None]) -> list[Path]:
    """Write OUT/submission/MODEL with a file a set, and a .zip of each such folder.

    Args:
        result: of a bench whose runs have predicted test rows.
        note: hears whose predictions these are, and which sets have none.

    Returns:
        The archives.

    Raises:
        ConfigError: a file cannot be written.
    """
    written = []
    for variant in result.plan.variants:
        files: list[Path] = []
        for each in result.of(variant):
            files += _files_of(result, each, note)
        if files:
            written.append(_write(result, variant, files))
            note(f"submission: {variant.name}: {', '.join(p.name for p in files)} in {written[-1]}")
            if missing := _missing(files):
                note(f"submission: GLUE's leaderboard takes all files at once; missing: {', '.join(missing)}")
    if not written:
        note("submission: none is written: no set has a leaderboard and test rows here")
    return written


def _missing(files: list[Path]) -> list[str]:
    """Return the files that GLUE's leaderboard takes beside these; none where these are of other suites."""
    wanted = {each.leaderboard.file_name for each in SUITES["glue"] if each.leaderboard is not None}
    names = {path.name for path in files}
    return sorted(wanted - names) if wanted & names else []


def _files_of(result: BenchResult, each: SetResult, note: Callable[[str], None]) -> list[Path]:
    """Return the file of the best seed of a set, in a list; none where there is none."""
    if not each.data.boards:
        note(f"submission: {each.data.name}: has no leaderboard that takes files")
        return []
    with_files = {seed: record for seed, record in each.done.items() if _names(result, each, seed)}
    seed = best_seed(with_files)
    records = list(each.records.values()) if seed is None else [each.done[seed]]
    reasons = dict.fromkeys(text for record in records for text in record.notes)
    for reason in reasons:
        note(f"submission: without {reason}")
    if seed is None:
        if not reasons:
            why = "its runs were done before without --submit, and their models are not kept"
            note(f"submission: without {each.data.name}: {why}")
        return []
    if len(each.done) > 1:
        note(f"submission: {each.data.name}: of seed {seed}, the best on the dev rows")
    return _names(result, each, seed)


def _names(result: BenchResult, each: SetResult, seed: int) -> list[Path]:
    folder = result.plan.run_of(each.data, each.variant, seed).submission
    return sorted(path for path in folder.glob("*") if path.suffix in {".tsv", ".json"})


def _write(result: BenchResult, variant: Variant, files: list[Path]) -> Path:
    folder = result.folder / SUBMISSION / file_name(variant.name)
    archive = folder.with_name(f"{folder.name}.zip")
    try:
        remove_folder(folder)
        folder.mkdir(parents=True)
        part = unique_part_of(archive)
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as target:
            for path in sorted(files, key=lambda file: file.name):
                write_bytes(folder / path.name, path.read_bytes())
                target.writestr(zipfile.ZipInfo(path.name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
        part.replace(archive)
    except OSError as error:
        raise ConfigError(f"-o {folder}: cannot be written: {error.strerror or error}") from None
    return archive


def score_to_beat(run: BenchRun, seeds: tuple[int, ...]) -> float | None:
    """Return the best dev score of the other seeds that have predicted the test rows; None if none has."""
    records: dict[int, RunRecord] = {}
    for seed in seeds:
        other = BenchRun(run.out, run.data, run.variant, seed)
        record = read_record(other.record)
        if record is not None and record.is_done and other.submission.is_dir():
            records[seed] = record
    best = best_seed(records)
    return None if best is None else records[best].scores["dev"].main_value
