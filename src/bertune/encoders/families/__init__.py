"""One module per family: names, settings, defaults, and what is its own."""
