#!/bin/sh
# Takes an image from the registry, unless the machine has it: a tag is a version, and never used again for another
# image. So what ran on a machine starts there again while the registry is away. When that does not answer, one line
# says so in the unit's status; systemd tries again in 3 seconds.
# Usage: fetch.sh HOST:PORT/NAME:TAG   (PATIENCE in the environment, where it is not 1)
set -eu
export no_proxy='*' # what is asked is the cluster's own
image=$1 registry=${1%%/*} patience=${PATIENCE:-1}

! docker image inspect "$image" >/dev/null 2>&1 || exit 0
# any answer will do; Docker itself would wait half a minute for one
curl --silent --output /dev/null --max-time $((3 * patience)) "http://$registry/v2/" || {
    echo "waiting for the image registry $registry, which does not answer: $image is not on this machine"
    # the journal asks whose line it is while its writer is there
    sleep 0.5
    exit 1
}
exec timeout $((60 * patience)) docker pull --quiet "$image"
