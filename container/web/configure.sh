#!/bin/sh
# Writes the nginx configuration of one site, for a host name that this machine was given at first boot.
# Usage: configure.sh OUT.conf SERVICE HOST-NAME
set -eu
out=$1 service=$2 name=$3

mkdir -p "$(dirname "$out")"
cat > "$out.new" <<EOF
# Ambassadors look twice a second whether a site is well: nothing to write down.
map \$http_user_agent \$written {
    ambassador 0;
    default 1;
}
access_log /dev/stdout combined if=\$written;

# Who asks for another name has come by a port that was another site's: it gets none of this one, and an ambassador
# (which tries again at 503, and not at the 421 of the books) finds the right one.
server {
    listen 80 default_server;
    return 503;
}

# The site: whatever \`current\` points to. One that nothing was deployed to answers 404 everywhere.
server {
    listen 80;
    server_name $name;
    # whose instance this is: an ambassador takes no other for one of its service
    add_header X-Service $service always;
    root /srv/site/current;
    index index.html;
    error_page 404 /404.html;
    # a release becomes current by one rename: never serve a stale handle to the one before
    open_file_cache off;

    location = /404.html {
        internal;
    }

    location = /version.txt {
        default_type text/plain;
        # what a location adds replaces what is added around it
        add_header X-Service $service always;
        add_header Cache-Control no-store;
    }

    location ~ \.xml$ {
        default_type application/xml;
    }
}
EOF
mv "$out.new" "$out"
