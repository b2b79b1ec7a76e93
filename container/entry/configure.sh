#!/bin/sh
# Writes the entry point's nginx configuration, from the host names that this machine was given at first boot.
# Usage: configure.sh OUT.conf   (BLOG_DOMAIN and JPBLOG_DOMAIN in the environment)
set -eu
out=$1

route() {
    cat <<EOF
server {
    listen 80;
    server_name $1;

    location / {
        proxy_pass http://127.0.0.1:$2;
        proxy_set_header Host \$host;
        proxy_set_header X-Forwarded-For \$remote_addr;
    }
}
EOF
}

mkdir -p "$(dirname "$out")"
{
    # a name that belongs to no site gets none
    printf 'server {\n    listen 80 default_server;\n    return 404;\n}\n'
    route "$BLOG_DOMAIN" 8001
    route "$JPBLOG_DOMAIN" 8002
} > "$out.new"
mv "$out.new" "$out"
