"""Lines of progress go through `logging`; a program that listens gets them, and else they go to stderr."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from bertune.console import LOGGER, Console, aligned, prefixed


@pytest.fixture
def logger():
    """The logger as a fresh process has it."""
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    LOGGER.handlers[:], LOGGER.propagate = [], True
    LOGGER.setLevel(logging.NOTSET)
    yield logging.getLogger("bertune")
    LOGGER.handlers[:], LOGGER.propagate = before[0], before[2]
    LOGGER.setLevel(before[1])


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


def test_lines_go_to_stderr_by_default(logger, capsys):
    console = Console()
    console.info("100 %s rows of 好")
    console.warning("out of memory")
    console.table(["step", "f1"], [["5 *", "0.5"]])
    prefixed(console)("rows.csv: 3 rows")
    prefixed(console, "resume")("goes on")
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines() == [
        "100 %s rows of 好", "warning: out of memory", "step   f1", "5 *   0.5", "data: rows.csv: 3 rows",
        "resume: goes on",
    ]  # fmt: skip


def test_lines_go_to_the_stderr_of_the_moment(logger, capsys):
    """A notebook or a test may have put another one in place."""
    for text in ("first", "second"):
        Console().info(text)
        assert capsys.readouterr().err == f"{text}\n"


def test_a_handler_of_the_program_gets_the_lines_instead(logger, capsys):
    kept = Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    console = Console()
    console.info("step 1")
    console.warning("out of memory")
    assert kept.lines == [("INFO", "step 1"), ("WARNING", "warning: out of memory")]
    assert capsys.readouterr().err == ""
    assert logger.handlers == [kept]


def test_the_level_of_the_program_is_kept(logger, capsys):
    logger.setLevel(logging.WARNING)
    console = Console()
    console.info("step 1")
    console.warning("out of memory")
    assert capsys.readouterr().err == "warning: out of memory\n"
    assert logger.level == logging.WARNING


def test_the_handlers_of_other_loggers_do_not_repeat_the_lines(logger, capsys):
    kept = Kept()
    logging.getLogger().addHandler(kept)
    try:
        Console().info("step 1")
    finally:
        logging.getLogger().removeHandler(kept)
    assert capsys.readouterr().err == "step 1\n"
    assert kept.lines == []


def test_a_quiet_console_shows_nothing(logger, capsys):
    kept = Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    console = Console(quiet=True)
    console.info("step 1")
    console.warning("out of memory")
    console.table(["step"], [["1"]])
    with console.progress("training", 2):
        console.advance(1)
    assert kept.lines == []
    assert capsys.readouterr() == ("", "")


def test_there_is_no_bar_where_there_is_no_terminal(logger, capsys):
    console = Console()
    with console.progress("training", 2):
        console.advance(1)
        console.info("step 1")
    assert capsys.readouterr() == ("", "step 1\n")


def test_lines_stand_above_the_bar_of_a_terminal(logger, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    console = Console()
    with console.progress("training", 2):
        console.advance(1)
        console.info("step 1 [not markup]")
    console.info("done")
    found = capsys.readouterr()
    assert found.out == ""
    assert "step 1 [not markup]\n" in found.err
    assert found.err.endswith("done\n")


def test_a_process_of_its_own_writes_to_stderr():
    program = "from bertune.console import Console; c = Console(); c.info('step 1'); c.warning('short')"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "step 1\nwarning: short\n")


def test_columns_are_aligned_by_what_characters_take():
    assert aligned(["label", "n"], [["好", "10"], ["dog", "5"]]) == ["label   n", "好     10", "dog     5"]
