#!/bin/sh
# A step of a build on the cluster: starts a job by cgate, shows its output as it comes, and exits with its exit status,
# so that the build fails if the job does.
#
#     CGATE_URL=https://gate.example:8042 CGATE_TOKEN=... examples/gate/ci-step.sh '{"app": "tests", "args": ["unit"]}'
#
# The argument is the body of POST /v1/jobs (docs/api.md). CGATE_TOKEN is that of a submitter (cgate token add ci).
# CURL_CA_BUNDLE names the CA of `cgate tls init`. It needs curl alone. The exit status is 111 if the job was not run
# to its end, for example because it was cancelled or its worker was lost.
set -eu

gate() {
    curl --silent --show-error --fail-with-body --config - "$@" <<END
header = "Authorization: Bearer $CGATE_TOKEN"
header = "Content-Type: application/json"
END
}

header() {
    tr -d '\r' | sed -n "s/^$1: *//p" | tail -n 1
}

# The key makes it safe to try again when the answer was lost: it is the same job then.
key="ci-$$-$(date +%s)"
job=$(gate --retry 5 --header "Idempotency-Key: $key" --dump-header - --output /dev/null \
    --data "$1" "$CGATE_URL/v1/jobs" | header location)
if [ -z "$job" ]; then
    echo "cgate has not taken the job" >&2
    exit 111
fi
echo "job: $CGATE_URL$job" >&2

cancel() {
    gate --request POST --output /dev/null "$CGATE_URL$job/cancel" || true
}
trap 'cancel; exit 130' INT TERM

# In the background, so that the shell hears a signal meanwhile.
gate --no-buffer "$CGATE_URL$job/stderr?follow=1" >&2 &
gate --no-buffer "$CGATE_URL$job/stdout?follow=1" &
wait
gate --output /dev/null "$CGATE_URL$job?wait=60"
status=$(gate --head "$CGATE_URL$job/stdout" | header cexec-exit-status)
exit "${status:-111}"
