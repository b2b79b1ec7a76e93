# What a machine shows of itself, at one moment: run as root by `sh -c` on each machine, for a snapshot.
#
#   collect SINCE UNITS SITES MEMBERS WHOLE
#     SINCE  the journal's warnings from this time on (seconds since the epoch)
#     UNITS  names of units, separated by blanks; those that fleet put here, and failed ones, are asked for as well
#     SITES  names of sites, separated by blanks; behind each :STAMP:DIGEST of its contents, as they were known last
#     MEMBERS  addresses of the machines that are etcd's members, separated by blanks
#     WHOLE  "whole" where the machine is also to tell what the cluster as a whole knows (fleet's registry, etcd's keys)
#
# Each part is between `@@ NAME TIME` and `@. NAME STATUS`: one that is cut off has no end, one that failed a status.
# It changes nothing, starts nothing (Docker's socket would), and no part of it may take longer than a few seconds.
since=$1 units=$2 sites=$3 members=$4 whole=$5 etcd_answers='' fleet_answers=yes docker_runs=''
# what is asked here is this cluster's own: no proxy of the machine's knows it
export no_proxy='*'

# The time of day in hundredths of a second, without a program that tells it: the kernel counts them since it booted.
since_boot() { read -r up _ < /proc/uptime && up=${up%.*}${up#*.}; }
since_boot
boot=$(($(date +%s%2N) - up))

part() {
    part=$1
    shift
    since_boot
    now=$((boot + up))
    printf '@@ %s %s.%s\n' "$part" "${now%??}" "${now#"${now%??}"}"
    "$@" 2>/dev/null
    printf '\n@. %s %s\n' "$part" $?
}

# so many seconds has a program that could hang
limited() { timeout 4 "$@"; }

get() { curl --silent --fail --max-time 3 "$@"; }

identity() {
    cat /etc/machine-id /proc/sys/kernel/random/boot_id
    cut -d' ' -f22 /proc/1/stat
    # of a host that has no ed25519 key, its ecdsa key
    cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null || cut -d' ' -f1,2 /etc/ssh/ssh_host_ecdsa_key.pub
    # a container's boot id is the host's: when its first process began tells its boots apart
}

system() {
    limited systemctl is-system-running
    failed
}

failed() { limited systemctl --failed --no-legend --plain | cut -d' ' -f1; }

units() {
    # shellcheck disable=SC2046,SC2086
    limited systemctl show --timestamp=unix --property=Id,ActiveState,SubState,Result,NRestarts,ExecMainCode \
        --property=ExecMainStatus,StateChangeTimestamp,Restart,RestartUSec,StartLimitIntervalUSec,StartLimitBurst \
        --property=FragmentPath,DropInPaths,MainPID,NeedDaemonReload,LoadState \
        -- $( (printf '%s\n' $units; ls /run/fleet/units; failed) | sort -u) || return
    # once fleet has unloaded a unit, a newer systemd (seen: 255) says of every unit that it needs a reload, of its root
    # slice too, until the next one: what changed since the last one tells of which that is true
    [ "$(limited systemctl show --property=NeedDaemonReload --value -- -.slice)" = yes ] || return 0
    loaded=$(limited systemctl show --timestamp=us --property=UnitsLoadTimestamp --value) || return
    changed=$(limited find -L /run/systemd/system /etc/systemd/system -type f -newermt "$loaded" -printf '%p ') || return
    printf '\nChanged=%s\n' "$changed"
}

texts() { cd /run/fleet/units && limited sha256sum -- *; }

docker() { [ "$docker_runs" ] && get --unix-socket /run/docker.sock "http://docker/$1"; }

# all of them, and of those that ended how; one that is gone by now says nothing
containers() {
    limited systemctl is-active --quiet docker && docker_runs=yes
    all=$(docker 'containers/json?all=1') || return
    printf '%s\n' "$all"
    case $all in *'"State":"exited"'* | *'"State":"dead"'*) ;; *) return ;; esac
    ended='%7B%22status%22%3A%5B%22exited%22%2C%22dead%22%5D%7D'
    for id in $(docker "containers/json?all=1&filters=$ended" | grep -o '"Id":"[0-9a-f]*"' | cut -d'"' -f4); do
        printf '\n'
        docker "containers/$id/json" || :
    done
}

images() { docker images/json; }

# CONTAINER STATUS, of each app that is published here: what it answers on its own machine, 000 where it says nothing
apps() {
    for site in $sites; do
        for unit in "/run/fleet/units/${site%%:*}.service" "/run/fleet/units/${site%%:*}@"*.service; do
            [ -e "$unit" ] || continue
            container=$(basename "$unit" .service | tr @ -)
            address=$(docker "containers/$container/json" | grep -o '"80/tcp":\[{"HostIp":"[^"]*","HostPort":"[0-9][0-9]*"' |
                sed 's/.*"HostIp":"\(.*\)","HostPort":"\(.*\)"/\1:\2/')
            [ ! "$address" ] || echo "$container $(curl --silent --head --output /dev/null --max-time 1 \
                --user-agent ambassador --write-out '%{http_code}' "http://$address/")"
        done
    done
}

# the runtime socket of the proxy in each ambassador's container; perl is part of every Debian system
# shellcheck disable=SC2016
servers='use Socket; alarm 2; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or exit 1;
    syswrite S, "show servers state instances\n"; print while <S>'
ambassadors() {
    for unit in /run/fleet/units/*-dynamic-amb.service; do
        container=$(basename "$unit" .service)
        pid=$(docker "containers/$container/json" | grep -o '"Pid":[0-9]*' | cut -d: -f2)
        [ "${pid:-0}" -gt 0 ] || continue
        answer=$(perl -e "$servers" "/proc/$pid/root/run/haproxy.sock") || continue
        printf '# %s\n%s\n' "$container" "$answer"
    done
}

# an etcd that does not answer is asked once, and not again for each part that it would answer
etcd() {
    # status 503 is an answer: not healthy
    curl --silent --max-time 3 http://127.0.0.1:2379/health && etcd_answers=yes || return
    printf '\n'
    get --write-out '\n' http://127.0.0.1:2379/v2/stats/self http://127.0.0.1:2379/v2/members
}

metrics() {
    [ "$etcd_answers" ] || return
    get http://127.0.0.1:2379/metrics |
        grep -E '^(etcd_server_(has_leader|leader_changes_seen_total)|etcd_network_peer_sent_failures_total)'
}

# an error is an answer: a key that is not there
keys() { [ "$etcd_answers" ] && curl --silent --max-time 3 "http://127.0.0.1:2379/v2/keys/$1?recursive=true"; }

# all pages of a collection, one a line (fleet gives a hundred items at a time)
fleet() {
    [ "$fleet_answers" ] || return
    token=
    while :; do
        page=$(get --unix-socket /run/fleet.sock "http://fleet/fleet/v1/$1${token:+?nextPageToken=$token}") || {
            fleet_answers=
            return 1
        }
        printf '%s\n' "$page"
        token=$(printf '%s' "$page" | grep -o '"nextPageToken":"[^"]*"' | cut -d'"' -f4)
        [ "$token" ] || return 0
    done
}

# Of each member's machine: ADDRESS, and which share of 5 connections it takes, or refuses, within a second. Nobody
# retries before that, so that a lost packet shows. Members only: a hundred machines would have ten thousand pairs. A
# machine that boots, whose etcd is not up yet, need not wait for others that do.
# shellcheck disable=SC2016
tries='use Socket; use Fcntl; my (@waiting, %reached); my $left = 0.9;
    for my $to (@ARGV) { for (1 .. 5) {
        socket(my $s, PF_INET, SOCK_STREAM, 0); fcntl($s, F_SETFL, O_NONBLOCK);
        setsockopt($s, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0));
        connect($s, sockaddr_in(2380, inet_aton($to))); push @waiting, [$to, $s] } }
    while (@waiting && $left > 0) {
        my $ready = ""; vec($ready, fileno($_->[1]), 1) = 1 for @waiting;
        (my $found, $left) = select(undef, $ready, undef, $left); last unless $found > 0;
        my @still; for my $it (@waiting) {
            if (!vec($ready, fileno($it->[1]), 1)) { push @still, $it; next }
            my $error = unpack("i", getsockopt($it->[1], SOL_SOCKET, SO_ERROR));
            $reached{$it->[0]}++ if $error == 0 || $error == 111 }
        @waiting = @still }
    printf "%s %.1f\n", $_, ($reached{$_} // 0) / 5 for @ARGV'
# shellcheck disable=SC2086
reached() { [ "$etcd_answers" ] && limited perl -e "$tries" $members; }

# HOST-NAME AMBASSADOR, of each route of the entry point
routes() {
    awk '$1 == "server_name" { name = $2 } $1 == "set" && $2 == "$ambassador" { print name, $3 }' /run/entry/entry.conf |
        tr -d ';'
}

# addresses and ports that take connections, and the program's name
listening() { limited ss -Hltnp | awk '{ print $4, $6 }' | sed 's/users:(("\([^"]*\)".*/\1/' | sort -u; }

# the digest of the platform's own table; nothing where there is none
filter() {
    rules=$(limited nft --stateless list ruleset) || { unset rules && return 1; }
    own=$(printf '%s\n' "$rules" | sed -n '/^table inet platform /,/^}/p')
    [ ! "$own" ] || printf '%s\n' "$own" | sha256sum | cut -c1-16
}

# All that filters, with the tables of iptables-legacy, which nft does not know (to ask for those that are not there
# would load them). `known FAMILY TABLE CHAIN POLICY`: a chain that a host had before it was a machine.
ruleset() {
    [ "${rules+asked}" ] && printf '%s\n' "$rules" || return
    sed 's/^/known /' /var/lib/platform/before/chains
    for family in ip ip6; do
        ! grep -q . "/proc/net/${family}_tables_names" || limited ${family}tables-legacy-save || return
    done
}

sshd() {
    limited /usr/sbin/sshd -T | grep -E '^(permitrootlogin|passwordauthentication|kbdinteractiveauthentication|allowusers|'`
        `'allowagentforwarding|maxsessions|pubkeyauthentication|permitemptypasswords) '
}

room() {
    limited df -P -B1 / /var/lib/docker /var/lib/etcd /run | awk 'NR > 1 { print $6, $2, $4 }'
    awk '/^(MemTotal|MemAvailable):/ { printf "%s %.0f\n", $1, $2 * 1024 }' /proc/meminfo
    echo "load $(cut -d' ' -f1 /proc/loadavg) $(nproc)"
}

journal() {
    limited journalctl --quiet --boot --priority=warning --since="@$since" --lines=20 --no-hostname \
        --output=short-unix | perl -CS -ne 'chomp; print substr($_, 0, 300), "\n"'
}

# One line a site: name, version, number of files, stamp, digest of all files with their paths. The stamp tells paths,
# sizes and times of change: while it is the one that is known, so is the digest, and no file is read.
contents() {
    for site in $sites; do
        known=${site#*:} site=${site%%:*}
        cd "/home/core/$site/current" 2>/dev/null || continue
        files=$(limited find -L . -type f -printf '%p %s %C@\n') || return
        stamp=$(printf '%s' "$files" | LC_ALL=C sort | sha256sum | cut -c1-16)
        digest=${known#*:}
        if [ "$stamp" != "${known%%:*}" ]; then
            sums=$(timeout 12 find -L . -type f -exec sha256sum {} +) || return
            digest=$(printf '%s\n' "$sums" | LC_ALL=C sort -k2 | sha256sum | cut -d' ' -f1)
        fi
        echo "$site $(head -c 64 version.txt) $(printf '%s\n' "$files" | wc -l) $stamp $digest"
    done
}

helpers() {
    cd /home/core && limited find . -type f ! -path './*/releases/*' ! -path './.*' -exec sha256sum {} + |
        LC_ALL=C sort -k2
}

part identity identity
part system system
part units units
part texts texts
part containers containers
part images images
part apps apps
part ambassadors ambassadors
part routes routes
part etcd etcd
part metrics metrics
# its socket takes connections before it runs, and would start it
[ "$(systemctl is-active fleet.service 2>/dev/null)" = active ] || fleet_answers=
part fleet fleet machines
part reached reached
part listening listening
part filter filter
part ruleset ruleset
part sshd sshd
part room room
part journal journal
part contents contents
part helpers helpers
if [ "$whole" = whole ]; then
    part fleet-units fleet units
    part fleet-state fleet state
    part registrations keys services
    part deployed keys platform/deployed
fi
