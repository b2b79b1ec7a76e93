"""What a sidekick writes of an instance: {"host": "192.0.2.1", "port": 49153}, and the address that it stands for."""

from __future__ import annotations

import ipaddress
import json
from typing import Any


def registration(address: str) -> str:
    """The value that registers HOST:PORT. Raises ValueError for what is no such address."""
    host, _, port = address.rpartition(":")
    return json.dumps({"host": host, "port": int(port)})


def address_of(value: Any) -> str:
    """HOST:PORT of a registration; "" of a value that is none."""
    try:
        document = json.loads(value)
        if isinstance(document["host"], str) and type(document["port"]) is int:
            return f"{document['host']}:{document['port']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return ""


def is_address(text: str) -> bool:
    """Whether an ambassador can follow it: HOST:PORT, with an IPv4 address."""
    host, _, port = text.rpartition(":")
    try:
        return bool(ipaddress.IPv4Address(host)) and 0 < int(port) < 65536
    except ValueError:
        return False
