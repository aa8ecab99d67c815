"""Words on a command line. Loads no torch until a verb needs it."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from bertune.cli.verbs import app

    app()
