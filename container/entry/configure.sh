#!/bin/sh
# Writes the entry point's nginx configuration, from the host names that this machine was given at first boot. All it
# knows of a site is the name of the site's ambassador.
# Usage: configure.sh OUT.conf   (BLOG_DOMAIN and JPBLOG_DOMAIN in the environment)
set -eu
out=$1

route() {
    cat <<EOF
server {
    listen 80;
    server_name $1;

    location / {
        # a variable, so that the ambassador's address is asked for again when it has started again
        set \$ambassador $2;
        proxy_pass http://\$ambassador;
        proxy_set_header Host \$host;
        proxy_set_header X-Forwarded-For \$remote_addr;
    }
}
EOF
}

mkdir -p "$(dirname "$out")"
{
    printf 'access_log /dev/stdout;\n'
    # Docker's own name server, on every network that somebody made; an answer that was lost is not waited for
    printf 'resolver 127.0.0.11 valid=1s ipv6=off;\nresolver_timeout 1s;\n'
    # a name that belongs to no site gets none
    printf 'server {\n    listen 80 default_server;\n    return 404;\n}\n'
    route "$BLOG_DOMAIN" blog
    route "$JPBLOG_DOMAIN" jpblog
} > "$out.new"
mv "$out.new" "$out"
