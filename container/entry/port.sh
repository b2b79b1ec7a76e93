#!/bin/sh
# Lets the entry point have its port. Docker that is killed while it takes a container away may keep that one's port when
# it is back, and gives it to no other ("port is already allocated") until it is started anew. Where no container has
# port 80 and Docker holds it all the same, Docker is killed once more: containers outlive that, and systemd starts it
# again. This start fails, and the unit is tried again by then.
set -eu
[ -z "$(docker ps --quiet --filter publish=80)" ] || exit 0
case $(ss -Hltnp 'sport = :80') in
    *docker-proxy*) ;;
    *) exit 0 ;;
esac
echo "Docker holds port 80 for a container that is gone: it begins anew" >&2
systemctl kill --kill-whom=main --signal=KILL docker.service
exit 1
