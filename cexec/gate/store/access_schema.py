"""The tables of tokens, sessions and the audit."""

TABLES: tuple[str, ...] = ()
