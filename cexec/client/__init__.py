"""The client: what `cexec` does."""
