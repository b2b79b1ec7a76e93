#!/bin/sh
# Makes this machine's Docker network `platform`, on which containers find ambassadors by name, unless it is there.
# Its bridge has a name of its own, by which the machine's filter knows it. Units that start at once take turns: Docker
# would make two networks of one name.
set -eu
exec flock /run/platform-network sh -c '
    docker network inspect platform >/dev/null 2>&1 ||
        docker network create --opt com.docker.network.bridge.name=platform0 platform >/dev/null
'
