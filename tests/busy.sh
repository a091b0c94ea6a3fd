#!/bin/sh
# busy.sh PYTHON RUNS [ARG...]: the tests of networks and of cmap, RUNS times beside two processes that never wait.  The
# first failure ends it.  The two processes end with this one, however it ends, and after LONGEST seconds in any case.
python=$1
runs=$2
shift 2
LONGEST=14400
loop="
import os, time
parent, end = os.getppid(), time.monotonic() + $LONGEST
while os.getppid() == parent and time.monotonic() < end:
    pass
"
for _ in 1 2; do "$python" -S -c "$loop" & done
trap 'kill $(jobs -p) 2>/dev/null' EXIT
trap 'exit 130' INT TERM
run=0
while [ "$run" -lt "$runs" ]; do
    run=$((run + 1))
    echo "busy: run $run of $runs"
    tests/run.sh "$python" -q tests/network tests/cmap "$@" || exit
done
