"""The tables of tokens, sessions and login codes.

| table | content |
|---|---|
| `access_key` | a secret that lets its bearer in, by its SHA-256 (`digest`); `kind` is token, session or login; `apps` is a JSON list of applications, or NULL for all; times are seconds since 1970; an `id` is never given again |
| `access_site` | the address of the `cgate` that serves, or served last, for `cgate login` |
"""  # noqa: E501

TABLES = (
    "CREATE TABLE access_key ("
    "id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, digest BLOB NOT NULL UNIQUE, "
    "role TEXT NOT NULL, apps TEXT, made REAL NOT NULL, ends REAL, revoked REAL)",
    "CREATE UNIQUE INDEX access_key_name ON access_key (name) WHERE kind = 'token' AND revoked IS NULL",
    "CREATE TABLE access_site (one INTEGER PRIMARY KEY CHECK (one = 1), url TEXT NOT NULL)",
)
