#!/bin/sh
# A tour of cexec on this machine alone: `make demo`.  The script prints each command before it runs it, and stops the
# processes that it has started.  All its files are in a temporary directory, which it removes.
# Environment: PYTHON (python3); DEMO_BIN, a directory with the commands and python, if nothing is to be installed;
# DEMO_REPORT, a file to which the report of cmap is copied.
set -eu
cd "$(dirname "$0")/.."
project=$PWD
python=${PYTHON:-python3}

work=$(mktemp -d)
started= # process ids
clean_up() {
    trap '' INT TERM
    for process in $started; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n# %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; }
run() { show "$@"; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
milliseconds() { python -c 'import time; print(round(time.monotonic() * 1000))'; }
await() { # FILE WHO: waits until WHO, the process that was started last, has written into FILE
    attempts=100 # each takes 0.1 seconds
    until [ -s "$1" ]; do
        kill -0 "$!" 2>/dev/null || fail "$2 ended before it printed anything"
        [ $((attempts -= 1)) -gt 0 ] || fail "$2 has printed nothing for 10 seconds"
        sleep 0.1
    done
}

if [ -n "${DEMO_BIN:-}" ]; then
    PATH=$DEMO_BIN:$PATH
else
    say "install cexec into a virtual environment, from a wheel as a user would"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    run "$python" -m venv "$work/venv"
    PATH=$work/venv/bin:$PATH
    rm -rf build # setuptools would find old modules there
    run pip --quiet wheel --no-deps --wheel-dir "$work/wheels" .
    run pip --quiet install "$work"/wheels/cexec_cluster-*.whl
fi
export PATH

say "this tour stays on this machine; without CEXEC_GROUP the whole local network would hear it"
export CEXEC_GROUP=127.255.255.255
show "export CEXEC_GROUP=$CEXEC_GROUP"

mkdir "$work/tour"
run cd "$work/tour"

say "the keys: holders of app.pub may run the program, holders of app may offer it"
run ckeygen app

say "two workers; they run on every machine that takes part, and here both are on this one"
for name in anna bert; do
    show "cservice --name $name -j 2 --allow-args app python $project/examples/lines.py &"
    cservice --name "$name" -j 2 --allow-args app python "$project/examples/lines.py" 2> "$name.log" &
    started="$started $!"
    await "$name.log" "cservice $name"
    cat "$name.log"
done

say "a logger, which writes a line for every job"
show "crat app.pub > jobs.log &"
crat app.pub > jobs.log 2> crat.log &
started="$started $!"
await crat.log crat

say "who is there"
run cps app.pub

say "a client, which is a remote pipe; there is nothing to configure"
printf 'one\ntwo\nthree\n' > words
run cat words
show "cexec app.pub < words"
begun=$(milliseconds)
found=$(cexec app.pub < words) || fail "cexec ended with status $?: $(cat anna.log bert.log)"
ended=$(milliseconds)
printf '%s\n' "$found"
[ "$found" = "3 lines" ] || fail "that is not what the program says of three lines"
echo "# in $((ended - begun)) ms"

say "a table of tasks, one for each row; the program does not like the third row"
printf 'name,count\nfirst,2\nsecond,4\nthird,-1\nfourth,3\n' > runs.csv
run cat runs.csv
show "cmap --params runs.csv --tag --stats --report report.html app.pub -- --repeat '{count}' '{name}'"
status=0
cmap --params runs.csv --tag --stats --report report.html app.pub -- --repeat '{count}' '{name}' || status=$?
[ "$status" = 1 ] || fail "cmap ended with status $status, and one task should have failed"
echo "# the exit status is the number of tasks that failed: $status"

say "its report is a page for a browser"
run ls -l report.html
grep -q 'ended with status 1' report.html || fail "the report does not say how the run ended"
[ -z "${DEMO_REPORT:-}" ] || run cp report.html "$DEMO_REPORT"

say "what the logger has written"
attempts=100
until [ "$(grep -c ' completed by ' jobs.log)" -ge 5 ] || [ $((attempts -= 1)) -eq 0 ]; do sleep 0.1; done
run cat jobs.log
grep -q . jobs.log || fail "crat has written nothing: $(cat crat.log)"

say "what the workers have logged of it"
tail -n +2 anna.log bert.log
