#!/bin/sh
# run.sh PYTHON [ARG...]: the tests, several files at a time where each process can have a network of its own.  Nothing is
# run a second time: a test that fails now and then has a cause, in the test or in cexec, and that cause is to be found.
python=$1
shift
at_once=""
# Each process that runs tests reads all of them, which takes three times as long if it cannot keep them compiled.
unset PYTHONDONTWRITEBYTECODE
test -d "$(dirname "$0")/__pycache__" || "$python" -m pytest --collect-only -qq >/dev/null 2>&1  # one, not each of them
# Eight, because the tests wait for most of their time.  The order is that of conftest.py, in which those that wait and
# those that compute alternate: xdist would leave the files with the fewest tests, which take longest, for the end.
# A process that dies ends the run: pytest-xdist now and then waits for ever for the tests that it had.
if unshare -n true 2>/dev/null; then at_once="--numprocesses=8 --dist=loadfile --no-loadscope-reorder --max-worker-restart=0"; fi
exec "$python" -m pytest $at_once "$@"
