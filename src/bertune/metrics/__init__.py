"""Metrics: numbers from numpy arrays, without torch."""
