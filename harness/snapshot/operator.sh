# What of a machine serves the operator's own user, who asks over SSH and without sudo, as fleetctl does. It is run by
# `sh -c` in the session that collect.sh is run in, before that and as that user, and is one more part of the answer: a
# line for each thing that was asked, with why it does not serve. What does not run is not asked: its socket would start it.
printf '@@ operator %s\n' "$(date +%s.%2N)"
for name in fleet docker; do
    [ "$(timeout 2 systemctl is-active $name.service)" = active ] || continue
    # shellcheck disable=SC2012 # its rights, with those of a list of access
    said=$(curl --silent --show-error --output /dev/null --max-time 2 --unix-socket /run/$name.sock http://x/_ping 2>&1) ||
        said="$(ls -l /run/$name.sock | cut -d' ' -f1-4); $said"
    echo "$name $said"
done
command -v fleetctl >/dev/null || echo "fleetctl it is in no folder of $PATH"
printf '\n@. operator 0\n'
