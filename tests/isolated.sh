#!/bin/sh
# isolated.sh COMMAND [ARG...]: runs COMMAND in a network namespace of its own where only the loopback is up, so that
# nothing it sends leaves the machine.  Where that is not allowed it says so and keeps the group to the loopback.
if [ "$(id -u)" = 0 ]; then options=-n; else options=-rn; fi

# the loopback is brought up by Python where ip(8) is missing: SIOCSIFFLAGS with IFF_UP
loopback_up='
import fcntl, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, b"lo".ljust(16, b"\0") + (1).to_bytes(2, "little") + bytes(22))
'
export loopback_up
if unshare $options true 2>/dev/null; then
    exec unshare $options sh -c 'python3 -c "$loopback_up" && unset loopback_up && exec "$@"' sh "$@"
fi

unset loopback_up
echo "WARNING: network namespaces are not allowed here: the group is 127.255.255.255, and some tests are skipped" >&2
export CEXEC_GROUP=127.255.255.255
exec "$@"
