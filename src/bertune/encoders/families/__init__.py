"""One file an architecture family: names, settings, and what is its own."""
