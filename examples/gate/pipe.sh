#!/bin/sh
# cexec by HTTP: a job whose input and output are streams, with nothing but curl.
#
#     CGATE_URL=http://127.0.0.1:8042 CGATE_TOKEN=... examples/gate/pipe.sh APP [ARGUMENT]... < input > output
#
# It fails if the job fails, also in the middle of the output: the answer is then cut off.
set -eu

app=$1
shift
set -- "$@" END
while [ "$1" != END ]; do # each ARGUMENT becomes a parameter arg=ARGUMENT
    argument=$1
    shift
    set -- "$@" --url-query "arg=$argument"
done
shift
exec curl --silent --show-error --fail --upload-file - --request POST \
    --header "Authorization: Bearer $CGATE_TOKEN" "$@" "$CGATE_URL/v1/apps/$app/run"
