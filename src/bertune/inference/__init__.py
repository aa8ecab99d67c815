"""Finished models: texts in, predictions out."""
