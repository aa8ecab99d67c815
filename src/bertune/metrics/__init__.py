"""Figures of merit: plain numbers from plain arrays, no torch."""
