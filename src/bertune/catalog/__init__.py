"""Data sets by name: suites, where their files are, figures that were published, files for leaderboards."""
