#!/bin/sh
# Makes the sites' host names lead to this machine, by dynamic DNS (RFC 2136), and keeps them so: fleet runs this on one
# machine at a time, and on another when that one is lost. Nothing is withdrawn at the end, for the next one overwrites.
# Environment: MACHINE_ADDRESS, BLOG_DOMAIN, JPBLOG_DOMAIN, NAME_SERVER ("" where the entry point's address is fixed)
set -eu
LIFETIME=5 # seconds that a resolver may remember an answer
: "$MACHINE_ADDRESS" "$BLOG_DOMAIN" "$JPBLOG_DOMAIN" "$NAME_SERVER" # one that is not set ends it here

if [ -z "$NAME_SERVER" ]; then
    echo "this cluster has no name server: its entry point has a fixed address"
    exec sleep infinity
fi

# a name that leads to an entry point which is not up yet would be worse than the old one
until curl --silent --output /dev/null --max-time 2 "http://$MACHINE_ADDRESS/"; do sleep 0.2; done

while :; do
    {
        echo "server $NAME_SERVER"
        for name in "$BLOG_DOMAIN" "$JPBLOG_DOMAIN"; do
            echo "update delete $name A"
            echo "update add $name $LIFETIME A $MACHINE_ADDRESS"
            echo send
        done
    } | nsupdate -t 3 -k /etc/platform/name.key || echo "the name server $NAME_SERVER did not take it; trying again"
    sleep 5
done
