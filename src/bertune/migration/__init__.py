"""Commands of other tools, read as data: what each of their flags is here."""
