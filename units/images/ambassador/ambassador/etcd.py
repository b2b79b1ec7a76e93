"""etcd's v2 keys, as far as a registration needs them."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any

KEY_NOT_FOUND, COMPARE_FAILED, EVENT_INDEX_CLEARED = 100, 101, 401
LIMIT = 5.0


class EtcdSilent(Exception):
    """etcd gave no answer, or one that is not of its v2 API."""


class EtcdRefused(Exception):
    """etcd answered with an error; `code` is its errorCode, `index` etcd's index at the time."""

    def __init__(self, code: int, message: str, index: int) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.index = index


@dataclass(frozen=True)
class Answer:
    """A node, etcd's index at the time of the answer, and what was done (get, set, expire, ...)."""

    node: dict[str, Any]
    index: int
    action: str = ""


class Etcd:
    """One etcd, at HOST:PORT. An answer may take `limit` seconds."""

    def __init__(self, address: str, limit: float = LIMIT) -> None:
        self._address = address
        self._limit = limit

    def get(self, key: str) -> Answer:
        """A key, or a directory with all below it. Raises EtcdSilent, EtcdRefused."""
        return self._ask("GET", key, {"recursive": "true"})

    def wait(self, key: str, after: int, within: float) -> str:
        """Returns when the key or something below it has changed since index `after`, or when `within` seconds have
        passed: what was done first (set, expire, ...), or "". Raises EtcdSilent, EtcdRefused."""
        query = {"recursive": "true", "wait": "true", "waitIndex": str(after + 1)}
        try:
            return self._ask("GET", key, query, within).action
        except EtcdRefused as refused:
            if refused.code != EVENT_INDEX_CLEARED:
                raise
        except TimeoutError:
            pass
        return ""

    def put(self, key: str, value: str, ttl: int) -> None:
        self._ask("PUT", key, {"value": value, "ttl": str(ttl)})

    def refresh(self, key: str, value: str, ttl: int) -> bool:
        """Lets a key live `ttl` seconds from now, which wakes nobody who waits for a change; False, and nothing done,
        when it is gone or has another value."""
        try:
            self._ask("PUT", key, {"prevValue": value, "ttl": str(ttl), "refresh": "true", "prevExist": "true"})
        except EtcdRefused as refused:
            if refused.code in (KEY_NOT_FOUND, COMPARE_FAILED):
                return False
            raise
        return True

    def delete(self, key: str, value: str) -> None:
        """Removes a key unless it has another value by now, or is gone."""
        try:
            self._ask("DELETE", key, {"prevValue": value})
        except EtcdRefused as refused:
            if refused.code not in (KEY_NOT_FOUND, COMPARE_FAILED):
                raise

    def _ask(self, method: str, key: str, values: dict[str, str], within: float | None = None) -> Answer:
        path = f"/v2/keys{urllib.parse.quote(key)}?{urllib.parse.urlencode(values)}"
        within = self._limit if within is None else within
        connection = http.client.HTTPConnection(self._address, timeout=within)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = json.loads(response.read())
        except TimeoutError:
            if "wait" in values:
                raise
            raise EtcdSilent(f"no answer within {within:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as failed:
            raise EtcdSilent(str(failed) or type(failed).__name__) from failed
        finally:
            connection.close()
        try:
            if "errorCode" in body:
                raise EtcdRefused(body["errorCode"], body.get("message", ""), body.get("index", 0))
            return Answer(body["node"], int(response.headers["X-Etcd-Index"]), str(body.get("action")))
        except (KeyError, TypeError, ValueError) as wrong:
            raise EtcdSilent(f"no answer of its v2 API: {wrong!r}") from wrong
