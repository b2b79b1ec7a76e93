"""The seam to HTTP, and the driver of a site.

Sites are asked for through the entry point, never through the internet: `open_session` gives one requests session
whose transport adapter connects every known host name to the entry point's address and refuses every other host.
URL, Host header and redirects stay those of the name. Each exchange, each hop of a redirect too, is recorded. Nothing
is tried twice and no connection is kept: what answers is what answers now.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import time
import urllib.parse
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import requests
import requests.adapters
import requests.utils
import urllib3.exceptions

from harness.errors import AnswerNotUnderstood, Misconfigured, PlatformWrong
from harness.record import Recorder

TIMEOUTS = (3.0, 10.0)  # seconds to connect, seconds between two bytes of an answer
_PORTS = {"http": 80, "https": 443}
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


class _EntryPoint(requests.adapters.HTTPAdapter):
    """Connects known names to one address. The entry point's port, where one is given, stands for port 80."""

    def __init__(
        self, address: str, port: int, names: Collection[str], recorder: Recorder, timeouts: tuple[float, float]
    ) -> None:
        super().__init__()
        self._address = address
        self._port = port
        self._names = {address, *(name.lower() for name in names)}
        self._recorder = recorder
        self._timeouts = timeouts

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        """Where to connect: requests asks its adapters here (2.32 and later). TLS still speaks of the name."""
        told: tuple[Any, Any] = super().build_connection_pool_key_attributes(*args, **kwargs)
        host, pool = told
        if host["host"] in self._names:
            if host["scheme"] == "https":
                pool = pool | {"server_hostname": host["host"], "assert_hostname": host["host"]}
            port = host["port"] or _PORTS[host["scheme"]]
            host |= {"host": self._address, "port": self._port if port == 80 else port}
        return host, pool

    def add_headers(self, request: requests.PreparedRequest, **kwargs: Any) -> None:
        """The Host header of this hop: requests copies the headers of the hop before."""
        request.headers["Host"] = urllib.parse.urlsplit(_normal(request.url or "")).netloc

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        started = time.monotonic()
        seen: dict[str, Any] = {"error": "interrupted", "bytes": 0}
        try:
            host = urllib.parse.urlsplit(request.url or "").hostname or ""
            if host not in self._names and not _is_loopback(host):
                raise LeadsAstray(request.url or "", f"leads outside: {request.url}")
            kwargs["timeout"] = kwargs.get("timeout") or self._timeouts
            response = super().send(request, *args, **kwargs)
            seen = {"status": response.status_code, "bytes": len(response.content)}
            return response
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            seen["error"] = _reason(error)
            raise
        except LeadsAstray as astray:
            seen["error"] = astray.how
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
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
    entry_point: str, names: Collection[str], recorder: Recorder, *, timeouts: tuple[float, float] = TIMEOUTS
) -> requests.Session:
    """A session that finds `names` at `entry_point` ("192.0.2.1", "127.0.0.1:8080", "[::1]:8080") and nothing else.

    The address itself and literal loopback addresses may be asked for too; names are never looked up. `timeouts` are
    seconds: to connect, and between two bytes. Its calls raise SiteUnreachable and LeadsAstray; here Misconfigured,
    when the entry point is not an address.
    """
    with_port = re.fullmatch(r"([\d.]+|\[.*\]):(\d+)", entry_point)
    host, port = with_port.groups() if with_port else (entry_point, "")
    try:
        address = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        raise Misconfigured(f"entry point {entry_point!r} is not an IP address, with or without a port") from None
    shown = f"[{address}]" if ":" in address else address
    session = _Session(f"{shown}:{port}")
    adapter = _EntryPoint(address, int(port or 80), names, recorder, timeouts)
    for scheme in _PORTS:
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
    if isinstance(error, requests.ReadTimeout):
        return "no answer in time"
    while isinstance(error, requests.RequestException) or not isinstance(error, OSError):  # the former are OSErrors
        if (cause := error.__cause__ or error.__context__) is None:
            break
        error = cause
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text[:1].lower() + text[1:] or type(error).__name__


def _normal(url: str) -> str:
    """A URL in the one form it is asked for: without fragment and default port, quoted, with a path.

    Raises ValueError when it is no URL.
    """
    parts = urllib.parse.urlsplit(requests.utils.requote_uri(url))
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    netloc = host if parts.port in (None, _PORTS.get(parts.scheme)) else f"{host}:{parts.port}"
    return urllib.parse.urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))


@dataclass(frozen=True)
class Page:
    """One answer: `url` is where redirects ended, `content_type` the header as it came."""

    url: str
    status: int
    content_type: str
    body: bytes

    @property
    def media_type(self) -> str:
        """Such as "text/html"; empty when the answer has none."""
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        """The body, read as what the header says, else its own <meta>, else UTF-8."""
        head = self.body[:1024].decode("ascii", "replace")
        declared = _CHARSET.search(self.content_type) or _META_CHARSET.search(head)
        try:
            return self.body.decode(declared[1] if declared else "utf-8-sig", "replace")
        except LookupError:
            return self.body.decode("utf-8-sig", "replace")


@dataclass(frozen=True)
class BrokenLink:
    """A link that does not give what it stands for: on which page, as written there, and what came instead."""

    page: str
    link: str
    status: int | str

    def __str__(self) -> str:
        return f"{self.page}: {self.link}: {self.status}"


_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.I)
_META_CHARSET = re.compile(r"<meta[^>]+charset\s*=\s*[\"']?([\w.:-]+)", re.I)
_SRCSET = re.compile(r"[\s,]*(\S*[^\s,])(?:\s[^,]*)?(?:,|$)")
_CSS_PASSED_OVER = re.compile(r"/\*.*?\*/|@namespace[^;]*;", re.S)
_CSS_IMPORT = re.compile(r"@import\s+(?:url\(\s*)?[\"']?([^\"')\s;]+)[^;]*;", re.I)
_CSS_URL = re.compile(r"url\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^\"')\s]*))\s*\)", re.I)

# (element, attribute) -> what the link is for. A "link" is followed by a person's click; all else belongs to the page.
_LINKS = {
    ("a", "href"): "link",
    ("area", "href"): "link",
    ("audio", "src"): "media",
    ("embed", "src"): "media",
    ("iframe", "src"): "media",
    ("image", "href"): "image",
    ("img", "src"): "image",
    ("img", "srcset"): "image",
    ("input", "src"): "image",
    ("object", "data"): "media",
    ("script", "src"): "script",
    ("source", "src"): "media",
    ("source", "srcset"): "image",
    ("track", "src"): "media",
    ("video", "poster"): "image",
    ("video", "src"): "media",
}
# rel of <link> -> the same; any other rel (alternate, canonical, next, ...) is a "link"
_RELS = {"stylesheet": "stylesheet", "icon": "image", "apple-touch-icon": "image", "mask-icon": "image"}
_RELS |= {"manifest": "media", "preload": "media", "prefetch": "media", "modulepreload": "script"}
# what a link is for -> how the media type must match, or browsers will not show it
_WANTED = {"page": r"text/html|application/xhtml\+xml", "stylesheet": "text/css", "image": "image/.+"}
_WANTED |= {"script": r"(text|application)/(x-)?javascript"}


@dataclass(frozen=True)
class _Link:
    page: str  # URL of the page it stands on
    text: str  # as written there
    url: str  # where it leads; "" when it is no URL
    purpose: str


class _Reader(HTMLParser):
    """Collects what a document links to, in its order: (purpose, link as written), and its first <base href>."""

    def __init__(self) -> None:
        super().__init__()
        self.base: str | None = None
        self.found: list[tuple[str, str]] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value.strip() for name, value in attrs if value is not None}
        self._in_style = tag == "style"
        if tag == "base" and "href" in given and self.base is None:
            self.base = given["href"]
        if tag == "link" and "href" in given:
            purposes = [_RELS[rel] for rel in given.get("rel", "").lower().split() if rel in _RELS]
            self.found.append((purposes[0] if purposes else "link", given["href"]))
        for name, value in given.items():
            purpose = _LINKS.get((tag, name))
            if purpose and name == "srcset":
                self.found.extend((purpose, url) for url in _SRCSET.findall(value))
            elif purpose:
                self.found.append((purpose, value))
        self.found.extend(_links_of_css(given.get("style", "")))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found.extend(_links_of_css(data))

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def _links_of_css(text: str) -> Iterator[tuple[str, str]]:
    text = _CSS_PASSED_OVER.sub("", text)
    yield from (("stylesheet", link) for link in _CSS_IMPORT.findall(text))
    yield from (("media", "".join(forms)) for forms in _CSS_URL.findall(_CSS_IMPORT.sub("", text)))


def _links_of(page: Page) -> Iterator[_Link]:
    """What an HTML page or a stylesheet links to, over HTTP; mailto:, data: and the like are passed over."""
    base, found = page.url, []
    if page.status == 200 and re.fullmatch(_WANTED["page"], page.media_type):
        reader = _Reader()
        try:
            reader.feed(page.text)
            reader.close()
        except AssertionError as error:  # html.parser, on a malformed <![...
            raise AnswerNotUnderstood(page.url, page.text, str(error)) from error
        base, found = urllib.parse.urljoin(page.url, reader.base or ""), reader.found
    elif page.status == 200 and page.media_type == "text/css":
        found = list(_links_of_css(page.text))
    for purpose, text in found:
        try:
            url = _normal(urllib.parse.urljoin(base, text))
        except ValueError:
            yield _Link(page.url, text, "", purpose)
            continue
        if urllib.parse.urlsplit(url).scheme in _PORTS:
            yield _Link(page.url, text, url, purpose)


class Site:
    """One site behind the entry point: `name` for people, `domain` for the Host header."""

    def __init__(self, name: str, domain: str, session: requests.Session) -> None:
        self.name = name
        self.domain = domain.lower()
        self._home = f"http://{self.domain}/"
        self._session = session

    def fetch(self, path: str = "/") -> Page:
        """What the site answers for a path, after redirects inside the site; any status is an answer.

        Raises SiteUnreachable, and LeadsAstray when a redirect leaves the site, even for the other site.
        """
        return self._get(self._home + path.removeprefix("/"))

    def version(self) -> str:
        """What /version.txt says: one word of 8 to 64 letters, digits and ._- as plain text."""
        page = self.fetch("/version.txt")
        if page.status != 200 or page.media_type != "text/plain":
            reason = f"status {page.status} and type {page.content_type or 'unknown'}, not 200 and text/plain"
            raise AnswerNotUnderstood(page.url, page.text, reason)
        if not re.fullmatch(r"[0-9A-Za-z._-]{8,64}\r?\n?", page.text):
            raise AnswerNotUnderstood(page.url, page.text, "not one line with one word of 8 to 64 of 0-9 A-Z a-z . _ -")
        return page.text.strip()

    def crawl(self, limit: int = 500) -> list[Page]:
        """Every answer that the links from "/" lead to inside the site, breadth first, each URL asked for once.

        Pages and what belongs to them (images, stylesheets and what those import, ...), whatever their status. The
        same host under another scheme or port is inside. Raises SiteUnreachable when the site stops answering,
        Misconfigured when there are more than `limit` URLs.
        """
        return self._walk(limit)[0]

    def broken_links(self, limit: int = 500) -> list[BrokenLink]:
        """Every link inside the site that does not end at status 200 in a fitting type; see `crawl`.

        Hyperlinks to other hosts are passed over; what a page loads from another host is broken ("leads outside"), and
        so is a redirect out of the site.
        """
        return self._walk(limit)[1]

    def differences(self, folder: Path) -> list[str]:
        """One line for each file of `folder` that the site does not serve byte for byte; empty when it serves all.

        An index.html is asked for under its folder's path too. 404.html may come with status 404. Raises Misconfigured
        when there is no file to compare with.
        """
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            raise Misconfigured(f"{folder} has no files to compare the site {self.name} with")
        lines = []
        for file in files:
            path = "/" + urllib.parse.quote(file.relative_to(folder).as_posix())
            statuses = (200, 404) if path == "/404.html" else (200,)
            paths = [path, path.removesuffix("index.html")] if file.name == "index.html" else [path]
            lines += [f"{path}: {fault}" for path in paths if (fault := self._fault(path, file.read_bytes(), statuses))]
        return lines

    def _fault(self, path: str, wanted: bytes, statuses: Collection[int]) -> str:
        try:
            page = self.fetch(path)
        except LeadsAstray as astray:
            return astray.how
        if page.status not in statuses:
            return f"status {page.status}"
        if page.body == wanted:
            return ""
        pairs = enumerate(zip(page.body, wanted, strict=False))
        first = next((at for at, (a, b) in pairs if a != b), min(len(page.body), len(wanted)))
        return f"{len(page.body)} bytes served, {len(wanted)} in the file, different from byte {first} on"

    def _get(self, url: str) -> Page:
        response = self._session.get(url)
        if not self._has(response.url):
            raise LeadsAstray(url, f"leads outside: {response.url}")
        return Page(
            _normal(response.url), response.status_code, response.headers.get("Content-Type", ""), response.content
        )

    def _has(self, url: str) -> bool:
        return urllib.parse.urlsplit(url).hostname == self.domain

    def _walk(self, limit: int) -> tuple[list[Page], list[BrokenLink]]:
        queue = deque([_Link("entry point", "/", self._home, "page")])
        answers: dict[str, Page | str] = {}
        broken = []
        while queue:
            link = queue.popleft()
            inside = self._has(link.url)
            if inside and link.url not in answers:
                if len(answers) >= limit:
                    raise Misconfigured(f"site {self.name} has more than {limit} URLs; raise the limit of the crawl")
                answer = answers[link.url] = self._answer(link.url)
                if isinstance(answer, Page):
                    answers.setdefault(answer.url, answer)
                    queue.extend(_links_of(answer))
            status = _judge(link, answers[link.url]) if inside else _judge_outside(link)
            if status:
                broken.append(BrokenLink(link.page, link.text, status))
        pages = {answer.url: answer for answer in answers.values() if isinstance(answer, Page)}
        return list(pages.values()), list(dict.fromkeys(broken))

    def _answer(self, url: str) -> Page | str:
        """A page, or why there is none. When the site itself is out of reach, no further link is worth a time-out."""
        try:
            return self._get(url)
        except LeadsAstray as astray:
            return astray.how
        except SiteUnreachable as unreachable:
            if url.startswith(self._home):
                raise
            return f"unreachable: {unreachable.seen}"


def _judge(link: _Link, answer: Page | str) -> int | str:
    """What is wrong with the answer to a link; empty when nothing is."""
    if isinstance(answer, str):
        return answer
    if answer.status != 200:
        return answer.status
    is_page = link.purpose == "link" and urllib.parse.urlsplit(answer.url).path.endswith(("/", ".html"))
    wanted = _WANTED.get("page" if is_page else link.purpose, ".*")
    if not re.fullmatch(wanted, answer.media_type):
        return f"wrong type: {answer.content_type or 'none'}"
    return ""


def _judge_outside(link: _Link) -> str:
    if not link.url:
        return "not a URL"
    return "" if link.purpose == "link" else f"leads outside: {link.url}"
