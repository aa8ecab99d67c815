"""bench.md and bench.html: the same tables for people, with what was run and on what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertune.config.yaml import dump_yaml
from bertune.errors import ConfigError
from bertune.files import write_bytes, write_json
from bertune.selection.bench.plan import Variant
from bertune.selection.bench.result import BenchResult, seeds_text
from bertune.selection.bench.tables import (
    Table,
    interval_text,
    markdown_table,
    published_table,
    run_table,
    score_table,
    trouble_lines,
    versus_table,
)
from bertune.selection.report_page import card, code, details, page, paragraph, section, table, text
from bertune.selection.trial_text import printable, score_text, span_text

JSON_FILE, MARKDOWN_FILE, PAGE_FILE = "bench.json", "bench.md", "bench.html"
COSTS = (
    "train: seconds of training alone, without reading and evaluation, and rows/s in that time: means over "
    "seeds. GB: the largest peak of a run; each run has a process of its own, so it is that of the run, with "
    "Python and libraries; on a GPU it is the memory that torch took there."
)


def write_report(result: BenchResult, command: str) -> None:
    """Write bench.json, bench.md and bench.html into the folder of a bench.

    Args:
        result: what it came to.
        command: what goes on with it, or repeats it.

    Raises:
        ConfigError: a file cannot be written.
    """
    folder = result.folder
    try:
        write_bytes(folder / MARKDOWN_FILE, "\n".join(markdown_lines(result, command)).encode("utf-8"))
        write_bytes(folder / PAGE_FILE, bench_page(result, command).encode("utf-8"))
        write_json(folder / JSON_FILE, {**result.to_json(), "command": command})
    except OSError as error:
        raise ConfigError(f"-o {folder}: cannot be written: {error.strerror or error}") from None


def markdown_lines(result: BenchResult, command: str) -> Iterator[str]:
    """Yield bench.md."""
    yield f"# {printable(result.plan.suite)}"
    yield ""
    yield printable(subtitle(result))
    for title, tables in _sections(result):
        yield from ("", f"## {title}")
        for each in tables:
            yield ""
            if len(tables) > 1 or each.title != title.lower():
                yield from (f"**{printable(each.title)}**", "")
            yield from markdown_table(each)
            for note in each.notes:
                yield from ("", printable(note))
    yield from ("", COSTS)
    troubles = trouble_lines(result)
    if troubles:
        yield from ("", "## Not run, or failed", "")
        yield from (f"- {printable(line)}" for line in troubles)
    yield from ("", "## How", "", f"    {printable(command)}", "")
    for line in machine_lines(result):
        yield f"- {printable(line)}"
    yield ""


def _sections(result: BenchResult) -> list[tuple[str, list[Table]]]:
    """Return the tables under their headings."""
    found = [("Scores", [score_table(result, v, published=True) for v in result.plan.variants])]
    if result.versus:
        found.append(("Comparison", [versus_table(versus) for versus in result.versus]))
    published = published_table(result)
    if published is not None:
        found.append(("Published figures", [published]))
    return [*found, ("Runs", [run_table(result)])]


def subtitle(result: BenchResult) -> str:
    """Say in one line what was run."""
    plan = result.plan
    models = ", ".join(variant.name for variant in plan.variants)
    done = sum(len(each.done) for each in result.results.values())
    total = len(plan.runnable) * len(plan.variants) * len(plan.seeds)
    runs = f"{done} runs" if done == total else f"{done} of {total} runs"
    sets = f"{len(plan.runnable)} of {plan.size} sets"
    return f"{models}: {sets}, {seeds_text(plan.seeds)}, {runs}"


def machine_lines(result: BenchResult) -> list[str]:
    """Say on what the runs were computed."""
    lines = []
    for machine in result.machines:
        names = ("bertune", "torch", "transformers", "tokenizers", "accelerate")
        packages = ", ".join(f"{name} {machine[name]}" for name in names if machine.get(name))
        where = machine.get("gpu") if machine.get("device") == "cuda" else machine.get("processor")
        lines.append(
            f"{machine.get('device')} ({where}), {machine.get('precision')}, {machine.get('cores')} cores, "
            f"{machine.get('threads')} threads, Python {machine.get('python')}, {packages}, "
            f"{machine.get('system')}"
        )
    return lines


def bench_page(result: BenchResult, command: str) -> str:
    """Return bench.html."""
    sections = [f"<div class=cards>{''.join(_cards(result))}</div>"]
    for title, tables in _sections(result):
        parts = [part for each in tables for part in _table_parts(each, len(tables), title)]
        parts += [paragraph(COSTS, "soft")] if title == "Scores" else []
        sections.append(section(title, *parts))
    troubles = [paragraph(line, "note") for line in trouble_lines(result)]
    if troubles:
        sections.insert(2, section("Not run, or failed", *troubles))  # after the scores that lack them
    sections.append(section("How", *_how(result, command)))
    return page(f"Bench: {result.plan.suite}", subtitle(result), sections)


def _table_parts(each: Table, count: int, title: str) -> list[str]:
    heading = f"<h3>{text(each.title)}</h3>" if count > 1 or each.title != title.lower() else ""
    kinds = ["best" if kind == "mean" else kind for kind in each.kinds]
    is_long = title == "Runs"
    left = {"Runs": 2, "Published figures": 3}.get(title, 1)
    content = table(each.header, each.rows, kinds=kinds, num_left=left, sortable=is_long)
    return [heading, content, *(paragraph(note, "soft") for note in each.notes)]


def _cards(result: BenchResult) -> Iterator[str]:
    """Yield the score of the suite for each model, and what it cost."""
    for variant in result.plan.variants:
        yield from _suite_cards(result, variant)
    for versus in result.versus:
        wins, ties, losses = versus.counts()
        words = "sets: better / no difference shown / worse"
        yield card(f"{wins} / {ties} / {losses}", f"{versus.b} against {versus.a}", words)
    records = [record for each in result.results.values() for record in each.done.values()]
    seconds = sum(r.train_seconds for r in records if math.isfinite(r.train_seconds))
    yield card(span_text(seconds), "Training", f"of {len(records)} runs together, without evaluation")


def _suite_cards(result: BenchResult, variant: Variant) -> Iterator[str]:
    for split in ("dev", "test"):
        score = result.suite_score(variant, split)
        if score is not None:
            interval = interval_text(score.spread.interval)
            spread = "one seed" if score.spread.interval is None else f"{interval} over seeds"
            words = f"mean of {len(score.sets)} of {result.plan.size} sets, {split} rows; {spread}"
            yield card(
                score_text(score.spread.mean), variant.name, words, "honest" if split == "test" else ""
            )


def _how(result: BenchResult, command: str) -> Iterator[str]:
    yield code(command)
    yield from (paragraph(line) for line in machine_lines(result))
    for data in result.plan.runnable:
        lines = "".join(text(line) + "\n" for line in dump_yaml(data.settings).splitlines())
        yield details(f"settings of {data.name}", f"<pre><code>{lines}</code></pre>")
    for variant in result.plan.variants:
        if variant.overrides:
            yield details(f"settings of {variant.name}", code(" ".join(variant.overrides)))


def report_paths(folder: Path) -> Sequence[Path]:
    """Return the files that `write_report` writes."""
    return [folder / name for name in (JSON_FILE, MARKDOWN_FILE, PAGE_FILE)]
