"""The relay: what `cproxy` does."""
