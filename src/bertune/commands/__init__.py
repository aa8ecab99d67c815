"""One file a verb, and the public Python function of the same name."""
