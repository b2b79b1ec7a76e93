"""`show SERVICE`: what etcd knows of a service, and what its ambassador makes of it, as one JSON document.

    docker exec blog-dynamic-amb python3 -m ambassador.show blog

`registered` are the addresses that etcd holds, `malformed` the keys whose value is none, `servers` the ambassador's
servers with what its health check says of each (UP, DOWN).
"""

from __future__ import annotations

import json
import sys

from ambassador.etcd import KEY_NOT_FOUND, Etcd, EtcdRefused
from ambassador.follow import ETCD, MAINTENANCE, instances, servers


def show(service: str) -> dict[str, object]:
    try:
        node = Etcd(ETCD).get(f"/services/{service}").node
    except EtcdRefused as refused:
        if refused.code != KEY_NOT_FOUND:
            raise
        node = {}
    addresses, malformed = instances(node)
    return {
        "registered": sorted(f"{host}:{port}" for host, port in addresses),
        "malformed": malformed,
        "servers": {server.address: server.state for server in servers().values() if server.state != MAINTENANCE},
    }


if __name__ == "__main__":
    print(json.dumps(show(sys.argv[1])))
