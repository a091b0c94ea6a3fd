"""The worker: what `cservice` does."""
