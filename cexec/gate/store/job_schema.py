"""The tables of pools, jobs, their outputs, and the changes of their states.

| table | content |
|---|---|
| `pool` | jobs that were started together; `number` is its second name, milliseconds since 1970 that no other pool has |
| `job` | a job; times are seconds since 1970; `owner` is the name of a token; `instance` the UUID of its worker; `expired` when its outputs were removed; `files` the names that it brought back |
| `output` | how an output of an ended job is kept: `data` in the row, or in files; `began` is its first byte that is kept |
| `idempotency` | the answer that a submitter's `Idempotency-Key` had, and the hash of its request |
| `event` | each change of a job's state, in the order in which they were committed |
"""  # noqa: E501

TABLES = (
    "CREATE TABLE pool ("
    "id TEXT PRIMARY KEY, number INTEGER UNIQUE NOT NULL, app TEXT NOT NULL, owner TEXT NOT NULL, "
    "submitted REAL NOT NULL, ended REAL) WITHOUT ROWID",
    "CREATE INDEX pool_app ON pool (app, id)",
    "CREATE INDEX pool_ended ON pool (ended)",
    "CREATE TABLE job ("
    "id TEXT PRIMARY KEY, app TEXT NOT NULL, owner TEXT NOT NULL, pool TEXT, instance TEXT, args TEXT NOT NULL, "
    "state TEXT NOT NULL, exit_status INTEGER, signal TEXT, reason TEXT, worker TEXT, attempts INTEGER NOT NULL, "
    "submitted REAL NOT NULL, started REAL, ended REAL, expired REAL, files TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX job_state ON job (state, id)",
    "CREATE INDEX job_app ON job (app, id)",
    "CREATE INDEX job_app_state ON job (app, state, id)",
    "CREATE INDEX job_pool ON job (pool, id) WHERE pool IS NOT NULL",
    "CREATE INDEX job_kept ON job (ended) WHERE expired IS NULL AND ended IS NOT NULL",
    "CREATE INDEX job_ended ON job (ended) WHERE ended IS NOT NULL",
    "CREATE TABLE output ("
    "job TEXT, stream INTEGER, began INTEGER NOT NULL, size INTEGER NOT NULL, data BLOB, "
    "PRIMARY KEY (job, stream)) WITHOUT ROWID",
    "CREATE TABLE idempotency ("
    "owner TEXT, key TEXT, request BLOB NOT NULL, job TEXT, pool TEXT, made REAL NOT NULL, "
    "PRIMARY KEY (owner, key)) WITHOUT ROWID",
    "CREATE INDEX idempotency_made ON idempotency (made)",
    "CREATE TABLE event ("
    "id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, job TEXT NOT NULL, pool TEXT, app TEXT NOT NULL, "
    "state TEXT NOT NULL, exit_status INTEGER, signal TEXT, worker TEXT)",
)
