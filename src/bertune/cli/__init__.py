"""Words on a command line. Loads no torch until a verb needs it."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    # GNU's OpenMP lets a waiting thread spin for long. Where a core is shared with other work (a notebook server, a
    # container with half a core) the thread it waits for cannot run meanwhile: LOG.md has 6 rows/s against 13.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a redirected Windows console has an encoding that lacks most letters
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    from bertune.cli.app import app

    app()
