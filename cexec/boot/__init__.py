"""Set-up over ssh: what `cboot` does."""
