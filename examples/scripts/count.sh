#!/bin/bash
# Counts: count.sh [UP_TO [SECONDS_BETWEEN]].
for ((number = 1; number <= ${1:-10}; number++)); do
    echo "$number"
    sleep "${2:-1}"
done
