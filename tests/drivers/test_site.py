"""The seam to HTTP and the site driver, against a real server on loopback that answers by Host header."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import re
import socket
import socketserver
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from harness.drivers.site import BrokenLink, Page, PagesWithoutEnd, Site
from harness.errors import AnswerNotUnderstood, ExitStatus, Misconfigured, PlatformWrong
from harness.record.log import Recorder, read_events
from harness.seams.http import LeadsAstray, SiteUnreachable, open_session

BLOG = "genkisugimoto.com"
JPBLOG = "jp.genkisugimoto.com"
SITES = Path(__file__).parent.parent.parent / "sites"
TYPES = {".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml", ".xml": "text/xml", ".png": "image/png"}
CASES = Path(__file__).parent.parent / "cases"
# Case of a real site -> its broken links, as they are written; none where it is not named
BROKEN = {
    "body-background": "gone.png",
    "cdata-html": "gone.html",
    "css-comment-in-string": "gone.png",
    "css-import-no-space": "gone.css",
    "frame": "gone.html",
    "meta-refresh": "gone.html",
    "svg-a-xlink": "gone.html",
    "svg-use": "gone.svg#i",
    "svg-use-xlink": "gone.svg#i",
    "utf16-page": "gone.html",
}
HTML = "text/html; charset=utf-8"


class Answer:
    """What the server gives: "silent" sends nothing, "stalls" and "breaks" stop after the first half of the body."""

    def __init__(self, body: str | bytes = "", kind: str = HTML, status: int = 200, **more: str) -> None:
        self.body = body.encode() if isinstance(body, str) else body
        self.status = status
        self.manner = more.pop("manner", "whole")
        self.headers = {"Content-Type": kind, **{name.title(): value for name, value in more.items()}}


def redirect(location: str) -> Answer:
    return Answer(status=302, location=location)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without the look-up of a name that HTTPServer makes

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what some tests are about."""


class Web:
    """The entry point: answers by (Host header, path), then from the folder of that host; counts what it was asked."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.folders: dict[str, Path] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}  # of the last request
        self.over = threading.Event()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = self.headers["Host"]
                web.asked.append((host, self.path))
                web.headers = dict(self.headers)
                web.send(self, web.find(host, self.path))

            def log_message(self, *_: Any) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.002})
        self.thread.start()

    def find(self, host: str, path: str) -> Answer:
        if (host, path) in self.answers:
            return self.answers[host, path]
        file = self.folders.get(host, Path("/nonexistent")) / urllib.parse.unquote(path).lstrip("/")
        file = file / "index.html" if path.endswith("/") else file
        if file.is_file():
            return Answer(file.read_bytes(), TYPES.get(file.suffix, "application/octet-stream"))
        return Answer("nothing here", status=404)

    def send(self, handler: http.server.BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.manner == "silent":
            self.over.wait(5)
            return
        handler.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            if value:
                handler.send_header(name, value)
        if answer.manner == "drips before the body":
            handler.flush_headers()
            self.drip(handler, b"X-More: and more ", 10_000)
            return
        handler.end_headers()
        if answer.manner.startswith("drips"):
            self.drip(handler, b"0", 10_000)
            return
        whole = answer.manner == "whole"
        handler.wfile.write(answer.body if whole else answer.body[: len(answer.body) // 2])
        if answer.manner == "stalls":
            self.over.wait(5)

    def drip(self, handler: http.server.BaseHTTPRequestHandler, drop: bytes, count: int) -> None:
        with contextlib.suppress(OSError):  # the client went
            for _ in range(count):
                handler.wfile.write(drop)
                if self.over.wait(0.01):
                    return

    def serve(self, path: str, *args: Any, host: str = BLOG, **more: Any) -> None:
        self.answers[host, path] = Answer(*args, **more)

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


Open = Callable[..., requests.Session]


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def opened(web: Web, log: Path) -> Iterator[Open]:
    recorder = Recorder(log)
    sessions = []

    def open_one(entry_point: str = web.address, **more: Any) -> requests.Session:
        sessions.append(open_session(entry_point, [BLOG, JPBLOG.upper()], recorder, **more))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()
    recorder.close()


@pytest.fixture
def session(opened: Open) -> requests.Session:
    return opened()


@pytest.fixture
def blog(session: requests.Session) -> Site:
    return Site("blog", BLOG, session)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound and never listening: refuses, and nobody else can take it meanwhile
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def exchanges(log: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(log) if event["kind"] == "exchange"]


def broken(site: Site) -> list[str]:
    return [str(link) for link in site.walk()[1]]


# The session


def test_refused_connection_is_unreachable(opened: Open, closed_port: int, log: Path) -> None:
    with pytest.raises(SiteUnreachable, match="connection refused") as caught:
        opened(f"127.0.0.1:{closed_port}").get(f"http://{BLOG}/a?b=1&c")
    assert caught.value.where == f"entry point 127.0.0.1:{closed_port}"
    assert f"--connect-to ::127.0.0.1:{closed_port} 'http://{BLOG}/a?b=1&c'" in caught.value.paste
    (exchange,) = exchanges(log)
    assert exchange["error"] == "connection refused" and "status" not in exchange
    assert isinstance(caught.value, PlatformWrong)


@pytest.mark.parametrize(
    ("manner", "reason"),
    [("silent", "no answer in time"), ("stalls", "timed out"), ("breaks", "5 bytes read, 5 more expected")],
)
def test_answer_that_does_not_come_whole_is_unreachable(
    web: Web, opened: Open, log: Path, manner: str, reason: str
) -> None:
    web.serve("/", "0123456789", manner=manner)
    with pytest.raises(SiteUnreachable, match=reason):
        opened(timeouts=(0.5, 0.1)).get(f"http://{BLOG}/")
    assert reason in exchanges(log)[0]["error"]
    assert len(web.asked) == 1, "it was tried again"


@pytest.mark.parametrize("manner", ["drips", "drips before the body", "drips without a length"])
def test_answer_that_drips_has_an_end(web: Web, opened: Open, log: Path, manner: str) -> None:
    """Each byte comes in time, and the whole never."""
    length = {"Content-Length": ""} if "without" in manner else {}
    web.serve("/", "0" * 10_000, manner=manner, **length)
    began = time.monotonic()
    with pytest.raises(SiteUnreachable, match=r"no end of the answer within 0\.2 s"):
        opened(timeouts=(0.5, 0.5), whole=0.2).get(f"http://{BLOG}/")

    assert time.monotonic() - began < 20  # all of it would take longer
    assert "no end of the answer" in exchanges(log)[0]["error"] and "status" not in exchanges(log)[0]


def test_connection_that_does_not_come_about_is_unreachable(opened: Open) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # takes one connection that nobody accepts; Linux then drops further ones
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        with pytest.raises(SiteUnreachable, match="no connection in time"):
            opened(f"127.0.0.1:{port}", timeouts=(0.1, 5)).get(f"http://{BLOG}/")


def test_default_limits_are_3_and_10_seconds(session: requests.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def send(self: Any, request: Any, *args: Any, **more: Any) -> Any:
        seen.update(more)
        raise requests.ReadTimeout

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    with pytest.raises(SiteUnreachable):
        session.get(f"http://{BLOG}/")
    assert seen["timeout"] == (3, 10)


@pytest.mark.parametrize(
    "url", ["http://example.org/", "https://example.org/", "http://192.0.2.7/", f"http://www.{BLOG}/"]
)
def test_host_that_is_not_listed_is_refused(web: Web, session: requests.Session, log: Path, url: str) -> None:
    with pytest.raises(LeadsAstray, match=re.escape(f"leads outside: {url}")):
        session.get(url)
    assert web.asked == []
    assert exchanges(log)[0]["error"] == f"leads outside: {url}"


def test_redirect_outside_is_refused_and_named(web: Web, session: requests.Session, log: Path) -> None:
    web.answers[BLOG, "/"] = redirect("https://example.org/x")
    with pytest.raises(LeadsAstray, match=f"http://{BLOG}/ leads outside: https://example.org/x"):
        session.get(f"http://{BLOG}/")
    assert [(hop["url"], hop.get("status"), hop.get("error")) for hop in exchanges(log)] == [
        (f"http://{BLOG}/", 302, None),
        ("https://example.org/x", None, "leads outside: https://example.org/x"),
    ]


@pytest.mark.parametrize(
    ("location", "how"),
    [
        ("/", "redirects without end"),
        *((url, "cannot be asked for") for url in ("ftp://a/", "http://[", f"http://{BLOG}:b/")),
    ],
)
def test_redirect_to_nowhere_leads_astray(web: Web, session: requests.Session, location: str, how: str) -> None:
    web.answers[BLOG, "/"] = redirect(location)
    with pytest.raises(LeadsAstray, match=how):
        session.get(f"http://{BLOG}/")


@pytest.mark.parametrize(
    "entry_point", ["", "localhost", "genkisugimoto.com:80", "127.0.0.1:", "127.0.0.1:http", "1.2.3"]
)
def test_entry_point_must_be_an_address(opened: Open, entry_point: str) -> None:
    with pytest.raises(Misconfigured, match="is not an IP address"):
        opened(entry_point)


@pytest.mark.parametrize(
    ("entry_point", "url", "connects_to"),
    [
        ("192.0.2.1", f"http://{BLOG}/", ("192.0.2.1", 80)),
        ("192.0.2.1", f"https://{BLOG}/", ("192.0.2.1", 443)),
        ("192.0.2.1", f"http://{BLOG.upper()}:8080/", ("192.0.2.1", 8080)),
        ("192.0.2.1:81", f"http://{BLOG}/", ("192.0.2.1", 81)),
        ("192.0.2.1:81", "http://192.0.2.1/", ("192.0.2.1", 81)),
        ("192.0.2.1:81", "http://127.0.0.1/", ("127.0.0.1", 80)),
        ("2001:db8::1", f"http://{BLOG}/", ("2001:db8::1", 80)),
        ("[2001:db8::1]:81", f"http://{BLOG}/", ("2001:db8::1", 81)),
    ],
)
def test_where_a_url_is_connected_to(
    opened: Open, monkeypatch: pytest.MonkeyPatch, entry_point: str, url: str, connects_to: tuple[str, int]
) -> None:
    called = []

    def create_connection(address: Any, *args: Any, **more: Any) -> Any:
        called.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib3.util.connection.create_connection", create_connection)
    with pytest.raises(SiteUnreachable, match="no network in tests"):
        opened(entry_point).get(url)
    assert called == [connects_to]


def test_each_hop_has_the_host_header_of_its_own_name(web: Web, session: requests.Session, log: Path) -> None:
    web.answers[BLOG, "/"] = redirect(f"http://{JPBLOG}:80/ja/")
    web.serve("/ja/", "こんにちは", host=JPBLOG)
    answer = session.get(f"http://{BLOG}/")
    assert (answer.url, answer.text) == (f"http://{JPBLOG}:80/ja/", "こんにちは")
    assert web.asked == [(BLOG, "/"), (JPBLOG, "/ja/")]
    first, second = exchanges(log)
    assert (first["method"], first["url"], first["status"]) == ("GET", f"http://{BLOG}/", 302)
    assert (second["status"], second["bytes"]) == (200, 15)
    assert 0 <= second["seconds"] < 5


def test_literal_loopback_address_is_asked_as_it_stands(web: Web, session: requests.Session) -> None:
    assert session.get(f"http://{web.address}/").status_code == 404
    assert web.asked == [(web.address, "/")]


def test_bytes_are_asked_for_as_they_are_over_a_connection_of_its_own(web: Web, session: requests.Session) -> None:
    session.get(f"http://{BLOG}/")
    assert web.headers["Accept-Encoding"] == "identity"
    assert web.headers["Connection"] == "close"


def test_environment_has_no_say(
    web: Web, session: requests.Session, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    web.serve("/", "direct")
    assert session.get(f"http://{BLOG}/").text == "direct"


def certificate(folder: Path, name: str) -> Path:
    """A file with a self-signed certificate for `name` and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now - day, now + day)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    file = folder / f"{name}.pem"
    file.write_bytes(
        made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@pytest.mark.parametrize(("name", "trusted"), [(BLOG, True), (JPBLOG, False)])
def test_tls_speaks_of_the_name_and_not_of_the_address(tmp_path: Path, opened: Open, name: str, trusted: bool) -> None:
    file = certificate(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    web = Web(context)
    web.serve("/", "safe", host=f"{BLOG}:{web.port}")
    try:
        session = opened("127.0.0.1")
        if trusted:
            assert session.get(f"https://{BLOG}:{web.port}/", verify=str(file)).text == "safe"
        else:
            with pytest.raises(SiteUnreachable, match=r"certificate|hostname"):
                session.get(f"https://{BLOG}:{web.port}/", verify=str(file))
    finally:
        web.close()


# Fetch and version


def test_fetch_that_ends_on_the_other_site_leads_astray(web: Web, blog: Site) -> None:
    web.answers[BLOG, "/"] = redirect(f"http://{JPBLOG}/")
    web.serve("/", "日本語", host=JPBLOG)
    with pytest.raises(LeadsAstray, match=f"http://{BLOG}/ leads outside: http://{JPBLOG}/"):
        blog.fetch()


def test_fetch_follows_redirects_inside_and_takes_any_status_as_an_answer(web: Web, blog: Site) -> None:
    web.answers[BLOG, "/old"] = redirect("/new/")
    web.serve("/new/", "gone", status=410, kind="text/plain")
    assert blog.fetch("/old") == Page(f"http://{BLOG}/new/", 410, "text/plain", b"gone")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("20260309-3f2a", "text/plain", status=404), "status 404"),
        (Answer("20260309-3f2a", "text/html"), "type text/html"),
        (Answer("20260309-3f2a", ""), "type unknown"),
        (Answer("", "text/plain"), "not one line"),
        (Answer("1234567", "text/plain"), "not one line"),
        (Answer("v" * 65, "text/plain"), "not one line"),
        (Answer("two words", "text/plain"), "not one line"),
        (Answer("20260309\n20260310\n", "text/plain"), "not one line"),
        (Answer("<p>hello</p>", "text/plain"), "not one line"),
        (Answer("２０２６０３０９", "text/plain; charset=utf-8"), "not one line"),
    ],
)
def test_version_that_cannot_be_read(web: Web, blog: Site, answer: Answer, reason: str) -> None:
    web.answers[BLOG, "/version.txt"] = answer
    with pytest.raises(AnswerNotUnderstood, match=reason):
        blog.version()


@pytest.mark.parametrize("body", ["12345678", "v" * 64 + "\n", "20260309-3f2a_b.1\r\n"])
def test_version(web: Web, blog: Site, body: str) -> None:
    web.serve("/version.txt", body, "text/plain")
    assert blog.version() == body.strip()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html; charset=Shift_JIS", "機械".encode("shift_jis")),
        ("text/html", '<meta charset="euc-jp">機械'.encode("euc-jp")),
        ("text/html; charset=utf-8", '<meta charset="euc-jp">機械'.encode()),
        ("text/html", "機械".encode("utf-8-sig")),
        ("text/html; charset=no-such", "機械".encode()),
    ],
)
def test_text_is_read_as_it_is_declared(content_type: str, body: bytes) -> None:
    text = Page("http://a/", 200, content_type, body).text
    assert text.endswith("機械") and not text.startswith("\ufeff")


# Links: what stands on the page at /dir/, what else is served, and what is reported

HOME = f"http://{BLOG}"
OK_CSS, OK_SVG, OK_JS = Answer("", "text/css"), Answer("<svg/>", "image/svg+xml"), Answer("", "text/javascript")


@pytest.mark.parametrize(
    ("page", "served", "reports"),
    [
        ('<a href="gone.html">', {}, ["gone.html: 404"]),
        ('<a href="/gone/">', {}, ["/gone/: 404"]),
        ('<a href="../gone#part">', {}, ["../gone#part: 404"]),
        ('<a href=" x ">', {"/dir/x": Answer(status=500)}, ["x: 500"]),
        ('<a href="x">', {"/dir/x": Answer(status=204)}, ["x: 204"]),
        ('<a href="/夜/">', {}, ["/夜/: 404"]),
        (f'<a href="{HOME}/gone">', {}, [f"{HOME}/gone: 404"]),
        (f'<a href="http://{BLOG.upper()}/gone">', {}, [f"http://{BLOG.upper()}/gone: 404"]),
        (f'<a href="//{BLOG}/gone">', {}, [f"//{BLOG}/gone: 404"]),
        ('<a href="x.html">', {"/dir/x.html": Answer("", "text/plain")}, ["x.html: wrong type: text/plain"]),
        ('<a href="x">', {"/dir/x": redirect("/y/")}, ["x: 404"]),
        ('<a href="x">', {"/dir/x": redirect("x")}, ["x: redirects without end"]),
        ('<a href="x">', {"/dir/x": redirect(f"http://{JPBLOG}/")}, [f"x: leads outside: http://{JPBLOG}/"]),
        ('<a href="x">', {"/dir/x": redirect("http://example.org/")}, ["x: leads outside: http://example.org/"]),
        ('<a href="http://[">', {}, ["http://[: not a URL"]),
        ('<a href="http://a:b/">', {}, ["http://a:b/: not a URL"]),
        ('<img src="x.png">', {}, ["x.png: 404"]),
        ('<img src="x.svg">', {"/dir/x.svg": Answer("<svg/>", "text/html")}, ["x.svg: wrong type: text/html"]),
        ('<img src="x.svg">', {"/dir/x.svg": Answer("<svg/>", "")}, ["x.svg: wrong type: none"]),
        (
            '<img src="http://example.org/x.png">',
            {},
            ["http://example.org/x.png: leads outside: http://example.org/x.png"],
        ),
        (f'<img src="http://{JPBLOG}/x">', {}, [f"http://{JPBLOG}/x: leads outside: http://{JPBLOG}/x"]),
        ('<img srcset="a.svg, b.svg 2x,c.svg 3x">', {"/dir/b.svg": OK_SVG}, ["a.svg: 404", "c.svg: 404"]),
        ('<img srcset="data:image/png;base64,AA== 1x, b.svg 20w">', {}, ["b.svg: 404"]),
        ('<source srcset="a.svg">', {}, ["a.svg: 404"]),
        ('<video src="a" poster="b"><source src="c"><track src="d"></video>', {}, [f"{x}: 404" for x in "abcd"]),
        ('<audio src="a"></audio><iframe src="b"></iframe><object data="c">', {}, [f"{x}: 404" for x in "abc"]),
        ('<script src="x.js"></script>', {"/dir/x.js": Answer("", "text/plain")}, ["x.js: wrong type: text/plain"]),
        (
            '<script src="https://example.org/x"></script>',
            {},
            ["https://example.org/x: leads outside: https://example.org/x"],
        ),
        ('<link rel="stylesheet" href="x">', {"/dir/x": Answer("", "text/plain")}, ["x: wrong type: text/plain"]),
        ('<link rel="shortcut icon" href="x">', {"/dir/x": Answer("")}, [f"x: wrong type: {HTML}"]),
        ('<link rel="alternate" href="feed.xml">', {}, ["feed.xml: 404"]),
        ('<base href="/other/"><base href="/no/"><a href="x">', {"/no/x": Answer()}, ["x: 404"]),
        ('<a href="x"><base href="/other/">', {"/dir/x": Answer()}, ["x: 404"]),
        ('<base href="http://example.org/"><img src="x">', {}, ["x: leads outside: http://example.org/x"]),
        ("<style>@import 'a.css'; p { background: url(b.png) }</style>", {}, ["a.css: 404", "b.png: 404"]),
        ("""<p style="background: url('a.png')">""", {}, ["a.png: 404"]),
        ('<a href="gone"><a href="gone">', {}, ["gone: 404"]),
    ],
)
def test_broken_link(web: Web, blog: Site, page: str, served: dict[str, Answer], reports: list[str]) -> None:
    web.answers[BLOG, "/"] = redirect("/dir/")
    web.serve("/dir/", page)
    web.answers.update({(BLOG, path): answer for path, answer in served.items()})
    assert broken(blog) == [f"{HOME}/dir/: {report}" for report in reports]


@pytest.mark.parametrize(
    ("page", "served"),
    [
        ('<a href="https://example.org/"><a href="mailto:a@b"><a href="tel:+81"><a href="javascript:x()">', {}),
        (f'<a href="http://{JPBLOG}/gone"><link rel="canonical" href="https://example.org/">', {}),
        ('<img src="data:image/png;base64,AA=="><form action="/gone"></form><a name="x"><a href>', {}),
        ('<a href="#here"><a href="?"><a href="">', {"/dir/?": Answer("")}),
        ("<!-- <img src=gone> --><style>/* url(gone) */ @namespace url(http://www.w3.org/1999/xhtml);</style>", {}),
        ('<base href="/other/"><a href="x">', {"/other/x": Answer("")}),
        ('<a href="x">', {"/dir/x": redirect("/dir/")}),
        ('<a href="x.pdf">', {"/dir/x.pdf": Answer("", "application/pdf")}),
        ('<script src="x"></script>', {"/dir/x": OK_JS}),
        ('<a href="/夜/">', {f"/{urllib.parse.quote('夜')}/": Answer("")}),
    ],
)
def test_link_that_is_not_broken(web: Web, blog: Site, page: str, served: dict[str, Answer]) -> None:
    web.answers[BLOG, "/"] = redirect("/dir/")
    web.serve("/dir/", page)
    web.answers.update({(BLOG, path): answer for path, answer in served.items()})
    assert broken(blog) == []


@pytest.mark.parametrize(
    ("css", "reports"),
    [
        ("p { background: url(x.png) }", ["x.png: 404"]),
        ("p { background: url( 'x y.png' ) }", ["x y.png: 404"]),
        ('p { background: url("/x.png"), url(data:image/png;base64,AA==) }', ["/x.png: 404"]),
        ("@import 'more.css' screen; @import url(x.css);", ["x.css: 404"]),
        (
            "@font-face { src: url(https://example.org/f) }",
            ["https://example.org/f: leads outside: https://example.org/f"],
        ),
    ],
)
def test_broken_link_in_a_stylesheet(web: Web, blog: Site, css: str, reports: list[str]) -> None:
    web.serve("/", '<link rel="stylesheet" href="/css/site.css">')
    web.serve("/css/site.css", css, "text/css")
    web.answers[BLOG, "/css/more.css"] = OK_CSS
    assert broken(blog) == [f"{HOME}/css/site.css: {report}" for report in reports]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(status=404), "404"),
        (Answer("<html>", "text/plain"), "wrong type: text/plain"),
        (redirect("/start"), "wrong type: text/plain"),
        (redirect(f"http://{JPBLOG}/"), f"leads outside: http://{JPBLOG}/"),
    ],
)
def test_home_page_itself_can_be_the_broken_link(web: Web, blog: Site, answer: Answer, status: str) -> None:
    web.answers[BLOG, "/"] = answer
    web.serve("/start", "<html>", "text/plain")
    assert broken(blog) == [f"entry point: /: {status}"]


def test_same_host_on_another_port_is_inside(web: Web, blog: Site, closed_port: int) -> None:
    web.serve("/", f'<a href="{HOME}:{closed_port}/"><a href="{HOME}:80/">')
    assert blog.walk()[1] == [BrokenLink(f"{HOME}/", f"{HOME}:{closed_port}/", "unreachable: connection refused")]


def test_crawl_ends_when_the_site_stops_answering(web: Web, opened: Open) -> None:
    web.serve("/", '<a href="a"><a href="b">')
    web.serve("/a", manner="silent")
    with pytest.raises(SiteUnreachable, match=f"{HOME}/a "):
        Site("blog", BLOG, opened(timeouts=(0.5, 0.1))).walk()
    assert (BLOG, "/b") not in web.asked


class Endless(dict[tuple[str, str], Answer]):
    """A server that makes up a page for whatever it is asked."""

    def __init__(self, page: Callable[[str], str]) -> None:
        super().__init__()
        self._page = page

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: tuple[str, str]) -> Answer:
        return Answer(self._page(key[1]))


ENDLESS: dict[str, Callable[[str], str]] = {
    "a calendar": lambda path: f'{path}: <a href="/{int(path.strip("/") or 1) + 1}">next month</a>',
    "every path is the same page": lambda path: '<a href="deeper/">on</a>',
    "a query": lambda path: f'{path}: <a href="/?page={path.count("x")}{"x" * (path.count("x") + 1)}">on</a>',
}


@pytest.mark.parametrize("page", ENDLESS.values(), ids=list(ENDLESS))
def test_site_that_makes_up_pages_has_an_end_and_is_told_so(web: Web, blog: Site, page: Callable[[str], str]) -> None:
    web.answers = Endless(page)

    with pytest.raises(PagesWithoutEnd, match=r"site blog have no end: .* and 20 files were deployed") as told:
        blog.walk(files=20)
    assert told.value.status == ExitStatus.PLATFORM_WRONG
    assert len(web.asked) < 50


def test_site_that_makes_up_pages_is_given_up_when_nobody_knows_how_many_there_are(
    web: Web, blog: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.drivers.site.CRAWL_LIMIT", 0.2)
    web.answers = Endless(ENDLESS["a calendar"])

    with pytest.raises(PagesWithoutEnd, match=r"that took 0\.2 s"):
        blog.walk()


def test_site_that_is_too_slow_is_not_said_to_make_up_pages(
    web: Web, blog: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages are no more than were deployed; and the more were deployed, the longer it may take."""
    monkeypatch.setattr("harness.drivers.site.CRAWL_LIMIT", 0.1)
    monkeypatch.setattr("harness.drivers.site.CRAWL_LIMIT_PER_FILE", 0.1 / 100_000)
    web.answers = Endless(ENDLESS["a calendar"])

    with pytest.raises(PagesWithoutEnd, match=r"by \S+, and that took 0\.2 s$"):
        blog.walk(files=100_000)


def test_large_site_is_walked_whole(web: Web, blog: Site) -> None:
    """More than any limit on a number of pages was; each leads to the next, and all to an asset."""
    for number in range(510):
        web.serve(f"/{number}.html", f'{number}<link rel="icon" href="/i.png"><a href="/{number + 1}.html">on</a>')
    web.serve("/", '<a href="/0.html">on</a>')
    web.serve("/i.png", b"", "image/png")

    assert [(link.link, link.status) for link in blog.walk(files=512)[1]] == [("/510.html", 404)]
    assert len(set(web.asked)) == 513


def test_malformed_markup_is_read_as_browsers_do(web: Web, blog: Site) -> None:
    web.serve("/", "<p><![no such thing")

    assert blog.walk()[1] == []  # a comment, for browsers


def test_crawl_is_breadth_first_in_the_order_of_the_page_and_asks_once(web: Web, blog: Site) -> None:
    web.serve("/", '<a href="/b#1"><a href="a"><img src="i"><a href="/b#2"><a href="old"><a href="./">')
    web.serve("/b", '<a href="c"><a href="%E5%A4%9C"><a href="/夜"><a href="/new">')
    web.serve("/a", '<a href="d"><a href="b">', status=404)
    web.answers[BLOG, "/old"] = redirect("new")
    web.serve("/new", '<a href="e">')
    web.answers[BLOG, "/i"] = OK_SVG
    pages = blog.walk()[0]
    asked = ["/", "/b", "/a", "/i", "/old", "/new", "/c", "/%E5%A4%9C", "/e"]
    assert [path for _, path in web.asked] == asked
    assert [page.url for page in pages] == [HOME + path for path in asked if path != "/old"]
    assert [page.status for page in pages] == [200, 200, 404, 200, 200, 404, 404, 404]


# Differences


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "contents"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "index.html").write_text("home")
    (folder / "404.html").write_text("nothing here")
    (folder / "sub dir/index.html").write_text("below")
    (folder / "sub dir/夜 #1?.svg").write_bytes(bytes(range(256)))
    return folder


def test_differences_of_a_folder_without_files(blog: Site, tmp_path: Path) -> None:
    for empty in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(Misconfigured, match="no files"):
            blog.differences(empty)


@pytest.mark.parametrize(
    ("path", "answer", "difference"),
    [
        ("/", Answer("home!"), "/: 5 bytes served, 4 in the file, different from byte 4 on"),
        ("/", Answer("hole"), "/: 4 bytes served, 4 in the file, different from byte 2 on"),
        ("/index.html", Answer(""), "/index.html: 0 bytes served, 4 in the file, different from byte 0 on"),
        ("/", Answer("home", status=404), "/: status 404"),
        ("/404.html", Answer("nothing here", status=503), "/404.html: status 503"),
        ("/sub%20dir/", Answer(status=403), "/sub%20dir/: status 403"),
        ("/sub%20dir/", redirect(f"http://{JPBLOG}/"), f"/sub%20dir/: leads outside: http://{JPBLOG}/"),
        ("/sub%20dir/", redirect("http://example.org/"), "/sub%20dir/: leads outside: http://example.org/"),
    ],
)
def test_difference(web: Web, blog: Site, folder: Path, path: str, answer: Answer, difference: str) -> None:
    web.folders[BLOG] = folder
    web.answers[BLOG, path] = answer
    assert blog.differences(folder) == [difference]


def test_file_that_is_not_served_is_a_difference(web: Web, blog: Site, folder: Path) -> None:
    web.folders[BLOG] = folder
    web.serve("/sub%20dir/%E5%A4%9C%20%231%3F.svg", status=404)
    assert blog.differences(folder) == ["/sub%20dir/%E5%A4%9C%20%231%3F.svg: status 404"]


@pytest.mark.parametrize("status", [200, 404])
def test_no_differences(web: Web, blog: Site, folder: Path, status: int) -> None:
    web.folders[BLOG] = folder
    web.serve("/404.html", "nothing here", status=status)
    assert blog.differences(folder) == []


def test_differences_of_a_site_that_is_not_there(opened: Open, closed_port: int, folder: Path) -> None:
    with pytest.raises(SiteUnreachable):
        Site("blog", BLOG, opened(f"127.0.0.1:{closed_port}")).differences(folder)


# The example contents

EXAMPLES = {"blog": (BLOG, "en", "Notes from a Small Cluster"), "jpblog": (JPBLOG, "ja", "小さなクラスタの日誌")}


def test_swapped_sites_differ_in_every_file(web: Web, session: requests.Session) -> None:
    web.folders = {BLOG: SITES / "jpblog", JPBLOG: SITES / "blog"}
    for name, (domain, _, _) in EXAMPLES.items():
        files = [file for file in (SITES / name).rglob("*") if file.is_file()]
        indexes = [file for file in files if file.name == "index.html"]
        assert len(Site(name, domain, session).differences(SITES / name)) == len(files) + len(indexes)


def test_examples_have_no_file_in_common() -> None:
    contents = [{file.read_bytes() for file in (SITES / name).rglob("*") if file.is_file()} for name in EXAMPLES]
    assert all(len(content) > 8 for content in contents)
    assert not contents[0] & contents[1]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_served_whole(web: Web, session: requests.Session, name: str) -> None:
    domain, language, title = EXAMPLES[name]
    web.folders[domain] = SITES / name
    site = Site(name, domain, session)
    assert broken(site) == []
    assert site.differences(SITES / name) == []
    pages = [page for page in site.walk()[0] if page.media_type == "text/html"]
    assert len(pages) > 4
    for page in pages:
        assert f'<html lang="{language}">' in page.text
        assert re.search(f"<title>.*{title}.*</title>", page.text)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_file_of_an_example_is_linked(web: Web, session: requests.Session, name: str) -> None:
    domain = EXAMPLES[name][0]
    web.folders[domain] = SITES / name
    served = {page.body for page in Site(name, domain, session).walk()[0]}
    loose = {file.name for file in (SITES / name).rglob("*") if file.is_file() and file.read_bytes() not in served}
    assert loose == {"404.html"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_for_what_is_not_found_has_no_broken_link(web: Web, session: requests.Session, name: str) -> None:
    domain = EXAMPLES[name][0]
    web.folders[domain] = SITES / name
    web.answers[domain, "/"] = Answer((SITES / name / "404.html").read_bytes())
    assert broken(Site(name, domain, session)) == []


# Sites that are not the example


def test_every_broken_case_is_a_case() -> None:
    assert set(BROKEN) <= {path.name for path in (CASES / "sites").iterdir()}


@pytest.mark.parametrize("path", sorted((CASES / "sites").iterdir()), ids=lambda path: path.name)
def test_links_of_real_sites_are_judged_as_browsers_would(web: Web, blog: Site, path: Path) -> None:
    web.folders[BLOG] = path

    assert [(link.link, link.status) for link in blog.walk()[1]] == (
        [(BROKEN[path.name], 404)] if path.name in BROKEN else []
    )


def test_two_sites_may_share_a_theme_and_no_page(web: Web, opened: Open) -> None:
    web.folders = {BLOG: CASES / "two/blog", JPBLOG: CASES / "two/jpblog"}
    one, other = Site("blog", BLOG, opened()), Site("jpblog", JPBLOG, opened())

    def bodies(site: Site, *, pages: bool) -> set[bytes]:
        return {page.body for page in site.walk()[0] if not pages or page.media_type == "text/html"}

    assert bodies(one, pages=False) & bodies(other, pages=False)
    assert not bodies(one, pages=True) & bodies(other, pages=True)


MORE = {
    "an iframe's own document": ('<iframe src="gone.html" srcdoc="<img src=gone.png>"></iframe>', ["gone.png"]),
    "a base that holds nothing": ('<base href="data:text/html,x"><a href="gone.html">x</a>', ["gone.html"]),
    "the second base": ('<base target="_top"><base href="/sub/"><base href="/no/"><img src="b.png">', []),
    "blanks and line ends in a URL": ('<a href=" su\nb/\tb.html ">x</a>', []),
    "escapes in CSS": ("<style>p{background:u\\72l(g\\6f ne.png)}</style>", ["gone.png"]),
    "an import in capitals": ("<style>@IMPORT URL( gone.css ) screen;</style>", ["gone.css"]),
    "an import that comes too late": ("<style>p{color:red} @import 'gone.css';</style>", []),
    "an import behind a layer": ("<style>@layer a; @import 'gone.css' layer(a);</style>", ["gone.css"]),
    "image-set": (
        "<p style=\"background:image-set('gone.png' 1x type('image/png'), url(sub/b.png) 2x)\">",
        ["gone.png"],
    ),
    "responsive images": (
        '<picture><source srcset="gone.png 1x, sub/b.png 2x"><img src="sub/b.png"></picture>',
        ["gone.png"],
    ),
    "a preloaded one": ('<link rel="preload" as="image" imagesrcset="gone.png 1x">', ["gone.png"]),
    "an image button": ('<input type="image" src="gone.png"><input type="text" src="no.png">', ["gone.png"]),
    "a cell's background": ('<table><tr><td background="gone.png"></table>', ["gone.png"]),
    "an image in SVG": (
        '<svg><image href="gone.png"/><foreignObject><a xlink:href="no">x</a></foreignObject></svg>',
        ["gone.png"],
    ),
    "xlink outside of SVG": ('<a xlink:href="no.html">x</a>', []),
    "a hint": (
        '<link rel="dns-prefetch" href="//other.example"><link rel="preconnect" href="https://other.example">',
        [],
    ),
    "a module, and data": (
        '<script type="module" src="gone.js"></script><script type="text/x-no" src="no"></script>',
        ["gone.js"],
    ),
    "a comment": ('<!-- <img src="no.png"> --><![if IE]><img src="sub/b.png"><![endif]>', []),
    "refresh without a URL": ('<meta http-equiv="refresh" content="30">', []),
    "refresh in quotes": ("<meta http-equiv=refresh content=\"5,url='gone.html'\">", ["gone.html"]),
    "no URL at all": ('<a href="http://[">x</a>', ["http://["]),
}


@pytest.mark.parametrize(("page", "broken"), MORE.values(), ids=list(MORE))
def test_links_are_those_that_browsers_see(web: Web, blog: Site, page: str, broken: list[str]) -> None:
    web.serve("/", page)
    web.serve("/sub/b.html", "b")
    web.serve("/sub/b.png", b"", "image/png")

    assert [link.link for link in blog.walk()[1]] == broken
