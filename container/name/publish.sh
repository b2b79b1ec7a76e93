#!/bin/sh
# Makes the sites' host names lead to this machine, by dynamic DNS (RFC 2136), and keeps them so: fleet runs this on one
# machine at a time, and on another when that one is lost. Nothing is withdrawn at the end, for the next one overwrites.
# Environment: MACHINE_ADDRESS, BLOG_DOMAIN, JPBLOG_DOMAIN, NAME_SERVER ("" where the entry point's address is fixed)
set -eu
export no_proxy='*' # what is asked is the cluster's own
LIFETIME=5 # seconds that a resolver may remember an answer
: "$MACHINE_ADDRESS" "$BLOG_DOMAIN" "$JPBLOG_DOMAIN" "$NAME_SERVER" # one that is not set ends it here

if [ -z "$NAME_SERVER" ]; then
    echo "this cluster has no name server: its entry point has a fixed address"
    exec sleep infinity
fi

entry_answers() {
    curl --silent --output /dev/null --max-time 2 "http://$MACHINE_ADDRESS/"
}

# a machine that is cut off from the others may have been replaced as the entry point
belongs() {
    curl --silent --fail --output /dev/null --max-time 5 'http://127.0.0.1:2379/v2/keys/?quorum=true'
}

# A machine that stood still has been lost for the others meanwhile, and another one may have the names: fleet, which
# stops this here then, has time to say so.
rest() {
    began=$(date +%s)
    sleep 5
    [ "$(($(date +%s) - began))" -gt 7 ] || return 0
    echo "this machine stood still: the names stay as they are for now"
    sleep 10
}

# a name that leads to an entry point which is not up yet would be worse than the old one
until entry_answers; do sleep 0.2; done

while :; do
    entry_answers || { echo "the entry point of this machine does not answer any more"; exit 1; }
    belongs || { echo "this machine's etcd does not reach the others: the names stay as they are"; rest; continue; }
    {
        echo "server $NAME_SERVER"
        for name in "$BLOG_DOMAIN" "$JPBLOG_DOMAIN"; do
            echo "update delete $name A"
            echo "update add $name $LIFETIME A $MACHINE_ADDRESS"
            echo send
        done
    } | nsupdate -t 3 -k /etc/platform/name.key || echo "the name server $NAME_SERVER did not take it; trying again"
    rest
done
