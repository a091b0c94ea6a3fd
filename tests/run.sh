#!/bin/sh
# run.sh PYTHON [ARG...]: the tests.  Those that fail are run once more, alone, and loudly: many are about time, in
# processes that share two CPUs.  One that fails twice is a failure; one that fails once has a cause to be found.
python=$1
shift
"$python" -m pytest "$@"
status=$?
[ "$status" = 1 ] || exit "$status"
echo >&2
echo "TESTS FAILED (above): once more, alone. What passes now is flaky, and its cause is to be found." >&2
exec "$python" -m pytest --last-failed --last-failed-no-failures none -v "$@"
