"""The logger: what `crat` does."""
