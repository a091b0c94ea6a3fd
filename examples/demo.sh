#!/bin/sh
# A tour of cexec on this machine alone: `make demo`.  The script prints each command before it runs it, and stops the
# processes that it has started.  All its files are in a temporary directory, which it removes.
# Environment: PYTHON (python3).
set -eu
cd "$(dirname "$0")/.."
project=$PWD
python=${PYTHON:-python3}

work=$(mktemp -d)
service=
clean_up() {
    trap '' INT TERM
    if [ -n "$service" ]; then
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
    fi
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
size() { wc -c < "$1" | tr -d ' '; }

say "install cexec into a virtual environment, from a wheel as a user would"
export PIP_DISABLE_PIP_VERSION_CHECK=1
run "$python" -m venv "$work/venv"
PATH=$work/venv/bin:$PATH
export PATH
rm -rf build # setuptools would find old modules there
run pip --quiet wheel --no-deps --wheel-dir "$work/wheels" .
run pip --quiet install "$work"/wheels/cexec_cluster-*.whl

say "the program that others can use from now on: an encoder, WAV in, OGG out"
if command -v oggenc >/dev/null; then
    set -- oggenc -Q -o- -
    echo "oggenc is here: $(command -v oggenc)"
else
    echo "there is no oggenc here: examples/oggenc.py takes its place"
    run pip --quiet install soundfile
    set -- "$work/venv/bin/python" "$project/examples/oggenc.py"
fi

say "this tour stays on this machine; without CEXEC_GROUP the whole local network would hear it"
export CEXEC_GROUP=127.255.255.255
show "export CEXEC_GROUP=$CEXEC_GROUP"

mkdir "$work/tour"
run cd "$work/tour"

say "the keys: holders of app.pub may use the encoder, holders of app may offer it"
run ckeygen app app.pub
run ls -l

say "a worker, which runs on every machine that takes part; here it is only this one"
show "cservice app $* &"
cservice app "$@" 2> cservice.log &
service=$!
attempts=100 # each takes 0.1 seconds
until [ -s cservice.log ]; do
    kill -0 "$service" 2>/dev/null || fail "cservice ended before it printed anything"
    [ $((attempts -= 1)) -gt 0 ] || fail "cservice has printed nothing for 10 seconds"
    sleep 0.1
done
cat cservice.log

say "a client, which is a remote pipe; there is nothing to configure"
show "python examples/tone.py > in.wav"
python "$project/examples/tone.py" > in.wav
show "cexec app.pub < in.wav > out.ogg"
started=$(milliseconds)
cexec app.pub < in.wav > out.ogg || fail "cexec ended with status $?: $(cat cservice.log)"
finished=$(milliseconds)

[ "$(head -c 4 out.ogg)" = OggS ] || fail "out.ogg is not an OGG file"
say "done: in.wav has $(size in.wav) bytes, out.ogg $(size out.ogg), encoded in $((finished - started)) ms"
say "the worker's log"
tail -n +2 cservice.log
