"""Optimizes weights; knows no concrete task."""
