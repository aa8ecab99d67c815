"""Losses, summed over what the task counts."""
