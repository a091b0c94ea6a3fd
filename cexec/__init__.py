"""cexec: zero-configuration remote pipes for ad-hoc clusters.  Imports nothing: start-up time is the product."""

__version__ = "0.1.0"
