"""Trials on a terminal: never wider or higher than it; elsewhere a line for each trial that has finished."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from tests.selection.made_studies import SPACE, make_study, wide_space

import bertune
from bertune.console import LOGGER, Console
from bertune.selection.trial_table import (
    TrialTable,
    final_lines,
    live_lines,
    seconds_left,
    summary_lines,
    trial_line,
)
from bertune.selection.trials import Study, Trial

ROOT = Path(__file__).parents[2]
EMPTY = Study((), "mcc", True, (80, 20), 5)


@pytest.fixture
def plain_logger():
    """The logger as a fresh process has it."""
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    LOGGER.handlers[:], LOGGER.propagate = [], True
    LOGGER.setLevel(logging.NOTSET)
    yield
    LOGGER.handlers[:], LOGGER.propagate = before[0], before[2]
    LOGGER.setLevel(before[1])


def test_the_final_table():
    assert final_lines(make_study(5, states="ccpfc"), SPACE, 80) == [
        "                                   learning          batch                 focal",
        "trial    state        mcc   time       rate  epochs   size           loss  gamma",
        "    0 *  complete  0.4932  47.0s  0.0003414       4      8          focal  4.845",
        "    1    complete  0.4832  1m25s   2.626e-6       1     32          focal  4.943",
        "    4    complete  0.4765  45.5s  0.0004087       2     32  cross_entropy      -",
        "5 trials: 3 complete, 1 pruned, 1 failed",
        "2 more settings, in trials.jsonl: pooling, labels",
    ]


def test_the_final_table_has_the_best_ten():
    study = make_study(30, states="c" * 30, higher_is_better=False)
    lines = final_lines(study, SPACE, 80)
    best = sorted(study.trials, key=lambda trial: trial.score)[:10]
    assert [int(line.split()[0]) for line in lines[2:12]] == [trial.number for trial in best]
    assert lines[12] == "30 trials: 30 complete; the best 10 are shown"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("space", [SPACE, wide_space()], ids=["seven", "forty"])
@pytest.mark.parametrize("count", [1, 5, 60])
def test_tables_fit_the_terminal(width, space, count):
    study = make_study(count, space)
    live = [line for line, _ in live_lines(study, space, width, 24, ["summary"], 0.0)]
    final = final_lines(study, space, width)
    assert max(map(cell_len, [*live, *final])) <= width
    assert len(live) <= 23
    for lines in (live, final):
        header = next(line for line in lines if "state" in line)
        assert {"trial", "state", "mcc", "time", "rate"} <= set(header.split())
        (best,) = [line for line in lines if " * " in line]
        assert int(best.split()[0]) == study.best.number
    if space is not SPACE:
        hidden = int(final[-1].split(" more settings, in trials.jsonl: ")[0])
        assert 2 <= len(space.dimensions) - hidden == len(final[1].split()) - 4


TEXTS = st.text(max_size=30)


@given(
    st.lists(
        st.builds(
            Trial,
            number=st.integers(0, 9999),
            settings=st.dictionaries(
                TEXTS, TEXTS | st.floats() | st.none() | st.lists(TEXTS, max_size=2), max_size=4
            ),
            state=st.sampled_from(["complete", "pruned", "failed", "running"]),
            score=st.none() | st.floats(allow_nan=False),
            evaluations=st.lists(st.floats(), max_size=20).map(tuple),
            seconds=st.floats(0, 1e8),
            reason=TEXTS,
        ),
        max_size=8,
        unique_by=lambda trial: trial.number,
    ),
    st.integers(1, 200),
    st.integers(1, 40),
    TEXTS,
)
def test_whatever_trials_say_no_line_leaves_the_terminal(trials, width, height, metric):
    study = Study(tuple(trials), metric, True, (80, 20), 5)
    summary = summary_lines(study, width, 12345.6, seconds_left(study))
    live = [line for line, _ in live_lines(study, SPACE, width, height, summary)]
    assert len(live) <= max(height - 1, 1)
    for line in [*live, *final_lines(study, SPACE, width)]:
        assert cell_len(line) <= width
        assert line.isprintable()


def test_the_newest_trials_are_shown_and_the_best_one_above_them():
    study = make_study(60, states="c" * 60, score=lambda s: 0.5)
    trials = tuple(replace(t, score=0.9 if t.number == 7 else 0.5) for t in study.trials)
    lines = [line for line, _ in live_lines(replace(study, trials=trials), SPACE, 80, 20)]
    numbers = [int(line.split()[0]) for line in lines if "complete" in line]
    assert numbers == [7, *range(60 - len(numbers) + 1, 60)]
    assert len(numbers) > 10


def test_a_running_trial_shows_its_evaluations_so_far():
    study = make_study(3, states="ccr")
    lines = [line for line, _ in live_lines(study, SPACE, 80, 24, (), 10.0)]
    running = study.trials[2]
    assert f"trial 2 so far: {', '.join(f'{e:.4f}' for e in running.evaluations)}" in lines
    (row,) = [line.split() for line in lines if "running" in line]
    assert row[:4] == ["2", "running", f"{running.evaluations[-1]:.4f}", "41.0s"]


def test_the_summary_counts_and_estimates():
    study = make_study(4, states="ccpf", planned=10)
    best = study.best
    (line,) = summary_lines(study, 120, 61, 200)
    assert line == (
        f"4/10 trials  1 pruned  1 failed  best mcc {best.score:.4f} (trial {best.number})  "
        "1 min 01 s, about 3 min 20 s left"
    )
    assert summary_lines(EMPTY, 80, 0.0, None) == ["0/5 trials  0.0 s"]
    assert [len(summary_lines(study, width, 61, 200)) for width in (80, 40)] == [2, 3]


def test_the_time_left():
    trials = [Trial(i, {}, "complete", 0.5, seconds=10.0) for i in range(2)]
    study = Study(tuple(trials), "f1", True, (8, 2), 6)
    assert seconds_left(replace(study, trials=())) is None
    assert seconds_left(study) == 40
    running = Trial(2, {}, "running", seconds=4.0)
    one = replace(study, trials=(*trials, running))
    assert seconds_left(one) == 30 + 6
    assert seconds_left(one, since=3.0) == 30 + 3
    assert seconds_left(one, since=99.0) == 30
    two = replace(study, trials=(*trials, running, replace(running, number=3)))
    assert seconds_left(two) == (20 + 6 + 6) / 2


def test_no_trial_ran_to_its_end():
    study = make_study(3, states="fpf")
    assert final_lines(study, SPACE, 80) == [
        "no trial ran to its end: 1 pruned, 2 failed",
        "trial 2: out of memory: 2 GiB asked",
    ]
    assert final_lines(EMPTY, SPACE, 80) == ["no trial ran to its end: no trials"]


def test_without_a_terminal_each_finished_trial_is_a_line_once(plain_logger, capsys):
    study = make_study(6, states="ccpfcr")
    earlier = replace(study, trials=study.trials[:1])
    with TrialTable(Console(), SPACE, earlier=earlier) as table:
        for count in (1, 2, 3, 4, 6, 6):
            table.update(replace(study, trials=study.trials[:count]))
    found = capsys.readouterr()
    assert found.out == ""
    lines = found.err.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["trial 1", "trial 2", "trial 3", "trial 4"]
    assert "pruned after 2 evaluations with 0." in lines[1]
    assert "failed: out of memory: 2 GiB asked" in lines[2]
    assert lines[4:] == final_lines(study, SPACE, 80)
    assert "\x1b" not in found.err


def test_a_line_of_a_trial_says_all_about_it():
    study = make_study(1, states="c")
    trial = study.trials[0]
    assert trial_line(trial, study) == (
        f"trial 0: mcc {trial.score:.4f} (best so far)  {trial.seconds:.1f} s  learning_rate=0.0003414 "
        'epochs=4 batch_size=8 loss=focal focal_gamma=4.845 pooling=mean labels=["差评", "好评"]'
    )


def test_a_quiet_console_shows_nothing(plain_logger, capsys):
    with TrialTable(Console(quiet=True), SPACE) as table:
        table.update(make_study(3))
    assert capsys.readouterr() == ("", "")


def test_nothing_is_shown_where_no_trial_finished(plain_logger, capsys):
    with TrialTable(Console(), SPACE) as table:
        table.update(make_study(1, states="r"))
    with TrialTable(Console(), SPACE):
        pass
    assert capsys.readouterr() == ("", "")


PROGRAM = """
import sys, time
from dataclasses import replace
sys.path.insert(0, {root!r})
from bertune.console import Console
from bertune.selection.trial_table import TrialTable
from tests.selection.made_studies import SPACE, make_study, wide_space
space = {space}
study = make_study(12, space, states="ccpfcccccccc")
console = Console()
with TrialTable(console, space) as table:
    for count in range(1, 13):
        running = replace(study.trials[count - 1], state="running", score=None)
        table.update(replace(study, trials=(*study.trials[: count - 1], running)))
        console.info(f"line {{count}} of training")
        with console.progress("training", 2), Console().progress("tokenising", 2):
            console.advance(1)
        print(f"data {{count}}", flush=True)
        table.update(replace(study, trials=study.trials[:count]))
console.info("the end")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "variables",
    [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}],
    ids=["plain", "nocolor", "dumb"],
)
def test_on_a_real_terminal(width, variables):
    """Lines stand above the table, standard output stays data, and the final table is left behind."""
    text, output = run_on_a_terminal(width, variables, "SPACE")
    assert output == "".join(f"data {i}\n" for i in range(1, 13))
    study = make_study(12, states="ccpfcccccccc")
    end = "\r\n".join([*final_lines(study, SPACE, width), "the end"]) + "\r\n"
    assert text.endswith(end)
    for i in range(1, 13):
        assert text.count(f"line {i} of training") == 1
    assert ("[1A" in text) == (variables.get("TERM") != "dumb")
    assert ("[31m" in text or "[36m" in text) == (not variables)
    assert "training ━" not in text and "failed: out of memory" in text


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_no_live_line_wraps_where_characters_become_escapes():
    text, _ = run_on_a_terminal(80, {"PYTHONIOENCODING": "ascii"}, "wide_space()")
    live = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text[: text.rindex("line 12 of training")])
    lines = [line for line in live.replace("\r", "\n").splitlines() if not line.startswith("trial 3: failed")]
    assert max(map(len, lines)) == 80
    assert any(line.startswith("37 more settings, in trials.jsonl: \\u6807") for line in lines)


def run_on_a_terminal(width: int, variables: dict[str, str], space: str) -> tuple[str, str]:
    """Run PROGRAM on a terminal of 24 lines; return what it showed, and its standard output."""
    import fcntl
    import pty
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": str(Path(bertune.__file__).parents[1]), **variables}
    program = [sys.executable, "-W", "error", "-c", PROGRAM.format(root=str(ROOT), space=space)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=side, env=env) as process:
        os.close(side)
        shown = b""
        try:
            while piece := os.read(main, 65536):
                shown += piece
        except OSError:  # the other side has been closed
            pass
        output = process.stdout.read().decode()
    os.close(main)
    assert process.returncode == 0, shown.decode()
    return shown.decode(), output
