"""One small file per command: argv in, one call, an exit status out."""
