"""The seam to HTTP.

Sites are asked for through the entry point, never through the internet: `open_session` gives one requests session
whose transport adapter connects every known host name to the entry point's address and refuses every other host.
URL, Host header and redirects stay those of the name. Each exchange, each hop of a redirect too, is recorded. Nothing
is tried twice and no connection is kept, so that each answer shows the state at the time of its request.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shlex
import socket
import threading
import time
import urllib.parse
from collections.abc import Collection
from types import TracebackType
from typing import Any

import requests
import requests.adapters
import requests.utils
import urllib3.connection
import urllib3.exceptions

from harness.errors import Misconfigured, PlatformWrong
from harness.record.log import Recorder
from harness.seams.patience import patience

TIMEOUTS = (3.0, 10.0)  # seconds to connect, seconds between two bytes of an answer
WHOLE_LIMIT = 60.0  # seconds for all of an exchange: an answer that drips never meets the limit between two bytes
PORTS = {"http": 80, "https": 443}
_BROKEN = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.HTTPError,
)


class SiteUnreachable(PlatformWrong):
    """The entry point gave no whole HTTP answer: refused, silent for too long, or broken off."""


class LeadsAstray(PlatformWrong):
    """A URL, or a redirect from it, does not end inside the site. `how` says where it ends, in a few words."""

    def __init__(self, url: str, how: str, paste: str = "") -> None:
        super().__init__(f"{url} {how}", expected="an answer of the site itself", seen=how, where=url, paste=paste)
        self.how = how


class _Endless(requests.Timeout):
    """An exchange was not over within its limit."""


class _Exchange:
    """Breaks off what is read through its sockets when a time is over. One at a time in each thread."""

    _thread = threading.local()

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(limit, self._break_off)
        self._timer.daemon = True
        self.broken_off = False

    @classmethod
    def uses(cls, opened: socket.socket) -> None:
        """The exchange of this thread reads through this socket too."""
        cls._thread.current._sockets.append(opened)

    def _break_off(self) -> None:
        self.broken_off = True
        for opened in self._sockets:
            with contextlib.suppress(OSError):  # it ended meanwhile
                opened.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> None:
        _Exchange._thread.current = self
        self._timer.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        # an answer that tells no length would otherwise pass for a whole one
        if self.broken_off:
            raise _Endless(f"no end of the answer within {self._limit:g} s") from error


class _Connection(urllib3.connection.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _Exchange.uses(self.sock)


class _SecureConnection(urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _Exchange.uses(self.sock)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _EntryPoint(requests.adapters.HTTPAdapter):
    """Connects known names to one address. The entry point's port, where one is given, stands for port 80."""

    def __init__(
        self,
        address: str,
        port: int,
        names: Collection[str],
        recorder: Recorder | None,
        timeouts: tuple[float, float],
        whole: float,
    ) -> None:
        super().__init__()
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        self._address = address
        self._port = port
        self._names = {address, *(name.lower() for name in names)}
        self._recorder = recorder
        self._timeouts = timeouts
        self._whole = whole

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        """Where to connect: requests asks its adapters here (2.32 and later). TLS still speaks of the name."""
        key: tuple[Any, Any] = super().build_connection_pool_key_attributes(*args, **kwargs)
        host, pool = key
        if host["host"] in self._names:
            if host["scheme"] == "https":
                pool = pool | {"server_hostname": host["host"], "assert_hostname": host["host"]}
            port = host["port"] or PORTS[host["scheme"]]
            host |= {"host": self._address, "port": self._port if port == 80 else port}
        return host, pool

    def add_headers(self, request: requests.PreparedRequest, **kwargs: Any) -> None:
        """The Host header of this hop: requests copies the headers of the hop before."""
        request.headers["Host"] = urllib.parse.urlsplit(normal(request.url or "")).netloc

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        started = time.monotonic()
        seen: dict[str, Any] = {"error": "interrupted", "bytes": 0}
        try:
            host = urllib.parse.urlsplit(request.url or "").hostname or ""
            if host not in self._names and not _is_loopback(host):
                raise LeadsAstray(request.url or "", f"leads outside: {request.url}")
            kwargs["timeout"] = kwargs.get("timeout") or self._timeouts
            with _Exchange(self._whole):
                response = super().send(request, *args, **kwargs)
                seen = {"status": response.status_code, "bytes": len(response.content)}
            return response
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            seen = {"error": _reason(error), "bytes": 0}
            raise
        except LeadsAstray as astray:
            seen["error"] = astray.how
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
            if self._recorder:
                self._recorder.emit("exchange", method=request.method, url=request.url, seconds=seconds, **seen)


class _Session(requests.Session):
    """A session whose errors are the harness's own."""

    def __init__(self, entry_point: str) -> None:
        super().__init__()
        self.trust_env = False
        self.max_redirects = 10
        self.headers.update({"User-Agent": "platform-harness", "Accept-Encoding": "identity", "Connection": "close"})
        self._entry_point = entry_point

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        asked = str(url)
        paste = f"curl -sSiL --max-time 13 --connect-to ::{self._entry_point} {shlex.quote(asked)}"
        try:
            return super().request(method, url, *args, **kwargs)
        except requests.TooManyRedirects as error:
            raise LeadsAstray(asked, "redirects without end", paste) from error
        except LeadsAstray as error:
            raise LeadsAstray(asked, error.how, paste) from error
        except _BROKEN as error:
            raise SiteUnreachable(
                f"{asked} cannot be reached at the entry point {self._entry_point}: {_reason(error)}",
                expected="an HTTP answer",
                seen=_reason(error),
                where=f"entry point {self._entry_point}",
                paste=paste,
            ) from error
        except (requests.RequestException, ValueError) as error:  # the latter from a Location that is no URL
            raise LeadsAstray(asked, f"cannot be asked for: {error}", paste) from error


def open_session(
    entry_point: str,
    names: Collection[str],
    recorder: Recorder | None,
    *,
    timeouts: tuple[float, float] = TIMEOUTS,
    whole: float = WHOLE_LIMIT,
) -> requests.Session:
    """A session that finds `names` at `entry_point` ("192.0.2.1", "127.0.0.1:8080", "[::1]:8080") and nothing else.

    Without a recorder the exchanges are not recorded one by one: they are traffic, which is recorded as a whole.
    The address itself and literal loopback addresses may be asked for too; names are never looked up. `timeouts` are
    seconds: to connect, and between two bytes; `whole` is for all of an exchange. Its calls raise SiteUnreachable and
    LeadsAstray; here Misconfigured, when the entry point is not an address.
    """
    with_port = re.fullmatch(r"([\d.]+|\[.*\]):(\d+)", entry_point)
    host, port = with_port.groups() if with_port else (entry_point, "")
    try:
        address = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        raise Misconfigured(f"entry point {entry_point!r} is not an IP address, with or without a port") from None
    shown = f"[{address}]" if ":" in address else address
    session = _Session(f"{shown}:{port}")
    connect, answer = (seconds * patience() for seconds in timeouts)
    adapter = _EntryPoint(address, int(port or 80), names, recorder, (connect, answer), whole * patience())
    for scheme in PORTS:
        session.mount(f"{scheme}://", adapter)
    return session


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which would have to be looked up


def _reason(error: BaseException) -> str:
    """Why an exchange failed, in a few words: the system's own where there are some."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, _Endless):
        return str(error)
    if isinstance(error, requests.ReadTimeout):
        return "no answer in time"
    while isinstance(error, requests.RequestException) or not isinstance(error, OSError):  # the former are OSErrors
        if (cause := error.__cause__ or error.__context__) is None:
            break
        error = cause
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text[:1].lower() + text[1:] or type(error).__name__


def normal(url: str) -> str:
    """A URL in the one form it is asked for: without fragment and default port, quoted, with a path.

    Raises ValueError when it is no URL.
    """
    parts = urllib.parse.urlsplit(requests.utils.requote_uri(url))
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    netloc = host if parts.port in (None, PORTS.get(parts.scheme)) else f"{host}:{parts.port}"
    return urllib.parse.urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))
