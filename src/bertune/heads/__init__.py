"""Heads: from the states of an encoder to the output of a task."""
