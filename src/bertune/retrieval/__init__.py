"""Vectors of whole files, and search in them."""
