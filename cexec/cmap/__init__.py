"""A table of work over every worker: where its tasks come from, what each of them is, and what becomes of it."""
