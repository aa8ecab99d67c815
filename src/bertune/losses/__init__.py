"""Losses: functions of tensors that return sums."""
