"""All jobs of a `cgate`: those that run, and those that are kept."""
