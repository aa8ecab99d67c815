"""Suites of data sets: every set with every model and seed, one table."""
