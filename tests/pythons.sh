#!/bin/sh
# pythons.sh [PYTEST-ARG...]: a part of the tests (or what the arguments say) with each Python that cexec is for, and
# all pairs of them as client and worker.  Each has a virtual environment of its own, .venv-pythonX.Y.  The last lines
# name the versions that are not here; with CI=true that is a failure.  PYTHONS="3.12 3.13" chooses.
cd "$(dirname "$0")/.." || exit
versions=${PYTHONS-3.11 3.12 3.13}
[ $# -gt 0 ] || set -- tests/protocol tests/system tests/worker tests/client tests/test_packaging.py
pairs=tests/network/test_pythons.py

find_python() { # VERSION: the path of an interpreter
    for one in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1"*/bin/python "$(uv python find "$1" 2>/dev/null)"; do
        [ -n "$one" ] || continue
        found=$("$one" -c 'import sys; print(sys.executable, "%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        [ "${found##* }" = "$1" ] && echo "${found% *}" && return
    done
    return 1
}

absent="" present="" failed=""
for version in $versions; do
    place=.venv-python$version
    if [ ! -e "$place/made" ]; then
        python=$(find_python "$version") || { absent="$absent $version"; continue; }
        "$python" -m venv "$place" && "$place/bin/python" -m pip install --quiet --no-compile --editable '.[test]' \
            && touch "$place/made" || { rm -rf "$place"; failed="$failed $version(environment)"; continue; }
    fi
    present="$present $version"
done
for version in $present; do
    echo "== Python $version"
    PATH="$PWD/.venv-python$version/bin:$PATH" tests/isolated.sh tests/run.sh ".venv-python$version/bin/python" "$@" \
        || failed="$failed $version"
done
for version in ${present%% *} ${present#"${present%% *}"}; do
    echo "== pairs of client and worker"
    tests/isolated.sh ".venv-python$version/bin/python" -m pytest -q "$pairs" || failed="$failed pairs"
    break
done
echo
echo "pythons: tested:${present:- none}"
[ -z "$failed" ] || echo "pythons: FAILED:$failed"
for version in $absent; do echo "pythons: ABSENT: Python $version is not here (PATH, pyenv, uv): NOT TESTED with it"; done
[ -n "$present" ] && [ -z "$failed" ] && { [ -z "$absent" ] || [ "$CI" != true ]; }
