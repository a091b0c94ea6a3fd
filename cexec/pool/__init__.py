"""The worker's half of `cexec.Executor`: the program `python3 -m cexec.pool`, which runs Python calls in a slot."""
