#!/bin/sh
# isolated.sh COMMAND [ARG...]: runs COMMAND in a network namespace of its own where only the loopback is up, so that
# nothing it sends leaves the machine.  Where that is not allowed it says so and keeps the group to the loopback.
if [ "$(id -u)" = 0 ]; then options=-n; else options=-rn; fi
loopback_up=$(dirname "$0")/loopback.py
if unshare $options true 2>/dev/null; then
    exec unshare $options sh -c 'python3 "$0" && exec "$@"' "$loopback_up" "$@"
fi

echo "WARNING: network namespaces are not allowed here: the group is 127.255.255.255, and some tests are skipped" >&2
export CEXEC_GROUP=127.255.255.255
exec "$@"
