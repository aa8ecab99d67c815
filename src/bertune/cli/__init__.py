"""The command line. It loads no torch until a command needs it."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    # GNU's OpenMP lets a waiting thread spin for long. Where other work shares the core (a notebook server,
    # a container with half a core) the thread it waits for cannot run: LOG.md has 6 rows/s against 13.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(
            stream, "reconfigure"
        ):  # a redirected Windows console has an encoding without most letters
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    from bertune.cli.app import app

    app()
