#!/bin/sh
# Writes the etcd ambassador's HAProxy configuration: this machine's etcd, and while that takes no connection those of
# etcd's other members, the first five machines. So who registers here goes on when this machine's etcd is lost.
# Usage: configure.sh OUT.cfg   (MACHINE_NAME, MACHINE_ADDRESS and MACHINES in the environment)
set -eu
out=$1

mkdir -p "$(dirname "$out")"
{
    cat <<EOT
global
    nbthread 1
    maxconn 1024

defaults
    mode tcp
    timeout connect 2s
    # a watch is silent until something changes
    timeout client 10m
    timeout server 10m
    # what one refuses is asked of another
    retries 3
    option redispatch 1

listen etcd
    bind :2379
    option allbackups
    default-server check inter 1s fall 1 rise 1
    server machine $MACHINE_ADDRESS:2379
EOT
    for machine in $(printf '%s\n' $MACHINES | head -n 5); do
        [ "${machine%%=*}" = "$MACHINE_NAME" ] || echo "    server ${machine%%=*} ${machine#*=}:2379 backup"
    done
} > "$out.new"
mv "$out.new" "$out"
