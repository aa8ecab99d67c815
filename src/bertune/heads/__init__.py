"""States to outputs."""
