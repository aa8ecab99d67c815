"""Texts to token ids. Loads no torch."""
