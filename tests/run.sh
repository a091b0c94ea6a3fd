#!/bin/sh
# run.sh PYTHON [ARG...]: the tests, several files at a time where each process can have a network of its own.  Those
# that fail are run once more, alone, and loudly: many are about time, in processes that share the CPUs.  One that fails
# twice is a failure; one that fails once has a cause to be found.
python=$1
shift
at_once=""
if unshare -n true 2>/dev/null; then at_once="--numprocesses=4 --dist=loadfile"; fi
"$python" -m pytest $at_once "$@"
status=$?
[ "$status" = 1 ] || exit "$status"
echo >&2
echo "TESTS FAILED (above): once more, alone. What passes now is flaky, and its cause is to be found." >&2
exec "$python" -m pytest --last-failed --last-failed-no-failures none -v "$@"
