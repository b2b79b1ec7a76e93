"""A new discovery URL: wrong answers (a fake session), the file it is written into, and real services on loopback."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from harness.commands import use_new_discovery_url as discovery
from harness.commands.use_new_discovery_url import main, new_discovery_url, use_new_discovery_url
from harness.errors import EnvironmentFailed, HarnessError, Misconfigured
from harness.model import tfvars
from harness.record.log import Recorder
from harness.seams.wait import NotYet, Waiter

ETCD = "http://etcd.example:2379/v2/keys/_etcd/registry"
PUBLIC = "https://discovery.example"
NEW_URL = "https://discovery.example/0123456789abcdef0123456789abcdef"
TFVARS = "# the blog\r\nmachines      = 3\r\ndiscovery_url = \"\"   # by use-new-discovery-url\r\nnote = 'é'".replace(
    "'", '"'
)


def answer(status: int, text: str = "", location: str = "") -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.raw = io.BytesIO(text.encode())
    if location:
        response.headers["Location"] = location
    return response


def under(size: object, *members: str) -> dict[str, str]:
    """What is under a discovery URL, as etcd's v2 keys tell it: path -> answer."""
    nodes = [{"key": f"/token/{number}", "value": value} for number, value in enumerate(members)]
    return {
        "/_config/size": json.dumps({"action": "get", "node": {"key": "/token/_config/size", "value": str(size)}}),
        "": json.dumps(
            {"action": "get", "node": {"key": "/token", "dir": True, **({"nodes": nodes} if nodes else {})}}
        ),
    }


class FakeSession:
    """Answers one request with a response, an error, or what a function makes of the request; keeps the requests.

    What is then asked of the URL that was given is another matter: `known` is what is under it, path -> answer; by
    default the size that was asked for, and no members."""

    def __init__(
        self,
        result: requests.Response | Exception | Callable[[str], requests.Response],
        known: dict[str, str] | None = None,
    ) -> None:
        self.result = result
        self.known = known
        self.asked: list[tuple[str, str, Any]] = []

    def request(self, method: str, url: str, **how: Any) -> requests.Response:
        if method == "GET" and how["params"] is None:
            size = next(iter((self.asked[-1][2] or {}).values()))
            known = under(size) if self.known is None else self.known
            path = "/_config/size" if url.endswith("/_config/size") else ""
            return (
                answer(200, known[path])
                if path in known
                else answer(404, '{"errorCode":100,"message":"Key not found"}')
            )
        self.asked.append((method, url, how["params"] or how["data"]))
        assert how["timeout"] == 5
        assert how["allow_redirects"] is False
        if isinstance(self.result, Exception):
            raise self.result
        return self.result(url) if callable(self.result) else self.result


def refused(kind: type[HarnessError], service: str, result: Any, *, asked: int = 1) -> str:
    """The one line with which the service's answer is refused."""
    session = FakeSession(result)
    with pytest.raises(HarnessError) as error:
        new_discovery_url(service, 3, session)
    assert type(error.value) is kind, error.value
    assert len(session.asked) == asked
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 500
    return message


# --- wrong answers


@pytest.mark.parametrize(
    "service",
    [
        "",
        "discovery",
        "discovery.example/new",
        "ftp://discovery.example",
        "http://",
        "http:///v2/keys",
        "http://:2379/v2/keys",
        "http://host:port/v2/keys",
        "http://host:99999",
        "http://host:0",
        "http://[::1/v2/keys",
        "http://user:secret-word@host/v2/keys",
        "http://host/v2/keys?wait=true",
        "http://host/new?size=3",
        "http://host/#new",
        "http://host/v2 keys",
        "http://host/\n",
        " http://host",
        'http://host/"x',
        "http://host/\x1b[31m\nred",
    ],
)
def test_a_service_that_is_no_plain_url_is_refused_before_asking(service: str) -> None:
    assert "is not a plain http:// or https:// URL" in refused(Misconfigured, service, answer(200), asked=0)


FAULTS = {
    "refused": (EnvironmentFailed, requests.ConnectionError("Connection refused"), "cannot be reached (Connection"),
    "timeout": (EnvironmentFailed, requests.ReadTimeout("slow"), "did not answer within 5 s"),
    "connect timeout": (EnvironmentFailed, requests.ConnectTimeout("slow"), "did not answer within 5 s"),
    "cut": (EnvironmentFailed, requests.exceptions.ChunkedEncodingError("cut"), "cannot be reached (cut)"),
    "certificate": (Misconfigured, requests.exceptions.SSLError("bad"), "TLS that can be trusted (bad)"),
    "no host": (Misconfigured, requests.exceptions.InvalidURL("no host"), "not a usable address (no host)"),
    "500": (EnvironmentFailed, (500, '{"message":"Raft Internal Error","cause":"etcdserver: timeout"}'),
            "fails itself: status 500, `Raft Internal Error (etcdserver: timeout)`"),
    "503": (EnvironmentFailed, (503, "<html>\n<h1>503"), "status 503, `<html>`; try again later"),
    "429": (EnvironmentFailed, (429, ""), "status 429, empty answer"),
}  # fmt: skip


@pytest.mark.parametrize("service", [ETCD, PUBLIC])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_that_cannot_answer_is_told_from_a_wrong_one(service: str, fault: str) -> None:
    kind, result, said = FAULTS[fault]
    assert said in refused(kind, service, answer(*result) if isinstance(result, tuple) else result)


ETCD_ANSWERS = {
    "no v2": (answer(404, "404 page not found\n"), "has no v2 keys"),
    "key was there": (answer(412, '{"errorCode":105,"message":"Key already exists","cause":"/x","index":4}'),
                      "did not take the token: status 412, `Key already exists (/x)`"),
    "prefix is a file": (answer(400, '{"errorCode":104,"message":"Not a directory","cause":"/x","index":4}'),
                         "`Not a directory (/x)`"),
    "forbidden": (answer(401, '{"message":"Insufficient credentials"}'), "status 401"),
    "login page": (answer(302, "", "https://login.example/?next=\x1b[0m"), "a redirect to `https://login.example/?next=?"),
    "key was set, not created": (answer(200, '{"action":"set"}'), "did not take the token: status 200"),
    "web page": (answer(201, "<html>" * 10000), "is not an etcd: status 201, `<html><html>"),
    "empty": (answer(201), "is not an etcd: status 201, empty answer"),
    "list": (answer(201, "[1]"), "is not an etcd"),
    "number": (answer(201, '{"node": 3}'), "is not an etcd"),
    "other key": (answer(201, '{"node":{"key":"/x","value":"3"}}'), "is not an etcd"),
}  # fmt: skip


@pytest.mark.parametrize(("result", "said"), ETCD_ANSWERS.values(), ids=ETCD_ANSWERS)
def test_an_answer_no_etcd_gives_is_refused(result: requests.Response, said: str) -> None:
    message = refused(Misconfigured, ETCD, result)
    assert said in message
    assert "--enable-v2" in message


def test_an_etcd_that_stored_another_size_is_refused() -> None:
    def stores_five(url: str) -> requests.Response:
        return answer(201, json.dumps({"node": {"key": url.partition("/v2/keys")[2], "value": "5"}}))

    assert "is not an etcd" in refused(Misconfigured, ETCD, stores_five)


PUBLIC_ANSWERS = {
    "web page": answer(200, "<!DOCTYPE html>\n<html><a href='http://x/y'>"),
    "longer than is read": answer(200, "https://x/" + "y" * 100_000),
    "empty": answer(200),
    "blank": answer(200, " \n"),
    "no token": answer(200, "https://discovery.example"),
    "no token but a slash": answer(200, "https://discovery.example//"),
    "two": answer(200, f"{NEW_URL}\n{NEW_URL}"),
    "no URL": answer(200, "0123456789abcdef"),
    "quoted": answer(200, f'"{NEW_URL}"'),
    "query": answer(200, f"{NEW_URL}?a=b"),
    "other scheme": answer(200, "etcd://discovery.example/0123"),
    "binary": answer(200, "\x00\x1b[31m\x07"),
    "not found": answer(404, "404 page not found"),
    "size refused": answer(400, "Failed to convert size"),
    "created": answer(201, NEW_URL),
    "moved": answer(301, "", "https://other.example/new?size=3"),
    "login page": answer(302, "<html>", "https://login.example"),
}


@pytest.mark.parametrize("result", PUBLIC_ANSWERS.values(), ids=PUBLIC_ANSWERS)
def test_an_answer_no_discovery_service_gives_is_refused(result: requests.Response) -> None:
    message = refused(Misconfigured, PUBLIC, result)
    assert message.startswith("https://discovery.example/new gave no discovery URL")
    assert "set DISCOVERY_SERVICE" in message


@pytest.mark.parametrize(
    ("service", "address"),
    [
        ("https://discovery.example", "https://discovery.example/new"),
        ("https://discovery.example/", "https://discovery.example/new"),
        ("https://discovery.example/new", "https://discovery.example/new"),
        ("https://discovery.example/new/", "https://discovery.example/new"),
        ("http://10.0.0.1:8087/a/renew", "http://10.0.0.1:8087/a/renew/new"),
        ("http://[::1]:8087", "http://[::1]:8087/new"),
        ("http://new", "http://new/new"),
        ("http://host/v2/keysmith", "http://host/v2/keysmith/new"),
    ],
)
def test_the_public_protocol_is_asked_at_new(service: str, address: str) -> None:
    url = f"https://{urllib.parse.urlsplit(service).netloc}/0123456789abcdef0123456789abcdef"
    session = FakeSession(answer(200, f"{url}\n"))
    assert new_discovery_url(service, 5, session) == url
    assert session.asked == [("GET", address, {"size": "5"})]


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (under(5), "is for `5` members and not for 3"),
        (under("three"), "is for `three` members and not for 3"),
        (under(3, "coreos-0=http://192.0.2.1:2380"), "was used before, by 1 members"),
        ({}, "nothing is known under the discovery URL"),
        ({"/_config/size": "<html>"}, "nothing is known under the discovery URL .*: status 200, `<html>`"),
        ({"/_config/size": under(3)["/_config/size"], "": "[]"}, "nothing is known under the discovery URL"),
    ],
)
@pytest.mark.parametrize("service", [ETCD, PUBLIC])
def test_a_url_that_no_new_cluster_can_use_is_refused(service: str, known: dict[str, str], said: str) -> None:
    def created(url: str) -> requests.Response:
        key = urllib.parse.urlsplit(url).path.removeprefix("/v2/keys")
        return answer(201, json.dumps({"action": "create", "node": {"key": key, "value": "3"}}))

    given = answer(200, NEW_URL) if service == PUBLIC else created
    with pytest.raises(Misconfigured, match=said):
        new_discovery_url(service, 3, FakeSession(given, known))


def test_a_url_of_another_host_is_refused() -> None:
    """What a service of one's own gives that was not told its address."""
    with pytest.raises(Misconfigured, match=r"gave a URL of another host, `https://discovery\.etcd\.io/abc`: tell it"):
        new_discovery_url(PUBLIC, 3, FakeSession(answer(200, "https://discovery.etcd.io/abc")))


def test_a_url_that_was_given_before_is_refused_and_the_file_stays(file: Path) -> None:
    use_new_discovery_url(file, PUBLIC, FakeSession(answer(200, NEW_URL)))
    before = file.read_bytes()

    with pytest.raises(Misconfigured, match=r"gave the URL that .* holds already"):
        use_new_discovery_url(file, PUBLIC, FakeSession(answer(200, NEW_URL)))
    assert file.read_bytes() == before


# --- the file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "terraform.tfvars"
    path.write_bytes(TFVARS.encode())
    path.chmod(0o640)
    return path


UNSOUND = {
    "machines missing": ('discovery_url = ""\n', "does not say how many machines: add the line machines = 3"),
    "machines in a comment": ("# machines = 3\n", "does not say how many machines"),
    "none": ("machines = 0\n", "line 1: machines must be a whole number from 1 on"),
    "negative": ("machines = -3\n", "whole number"),
    "half": ("machines = 1.5\n", "whole number"),
    "beyond": ("machines = 1e999\n", "whole number"),
    "word": ('machines = "three"\n', "whole number"),
    "list": ("machines = [3]\n", "whole number"),
    "expression": ("machines = 1 + 2\n", "whole number"),
    "malformed": ('machines = 3\nx = "\n', "line 2: string is not closed"),
    "discovery_url is a list": ("machines = 3\ndiscovery_url = []\n", "line 2: discovery_url is not a plain string"),
    "discovery_url twice": ('machines = 3\ndiscovery_url = ""\ndiscovery_url = ""\n', "a second time"),
}


@pytest.mark.parametrize(("text", "said"), UNSOUND.values(), ids=UNSOUND)
def test_the_service_is_not_asked_when_the_file_is_unsound(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    assert said in not_asked(file)
    assert file.read_text() == text


def not_asked(path: Path) -> str:
    """The line with which the file is refused before the service is asked."""
    session = FakeSession(answer(200, NEW_URL))
    with pytest.raises(Misconfigured) as error:
        use_new_discovery_url(path, PUBLIC, session)
    assert session.asked == []
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_missing_file_names_the_example(tmp_path: Path) -> None:
    said = "is missing: copy terraform.example.tfvars to terraform.tfvars first"
    assert said in not_asked(tmp_path / "terraform.tfvars")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert said in not_asked(tmp_path / "dangling")
    (tmp_path / "circle").symlink_to("circle")
    assert "cannot be read: Too many levels of symbolic links" in not_asked(tmp_path / "circle")


def test_a_folder_and_a_file_in_another_encoding_are_refused(file: Path) -> None:
    assert "cannot be read: Is a directory" in not_asked(file.parent)
    file.write_bytes("machines = 3".encode("utf-16"))
    assert "is not UTF-8 (byte 1): save it as UTF-8" in not_asked(file)


def test_a_write_protected_file_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == file and mode == os.W_OK))  # root may always
    assert "is write-protected" in not_asked(file)


@pytest.mark.parametrize(
    ("function", "number", "kind", "remedy"),
    [
        ("tempfile.mkstemp", errno.EACCES, Misconfigured, "allow writing in"),
        ("tempfile.mkstemp", errno.EROFS, Misconfigured, "allow writing in"),
        ("os.fchmod", errno.EPERM, Misconfigured, "allow writing in"),
        ("os.fsync", errno.ENOSPC, EnvironmentFailed, "make room on its disk"),
        ("os.fsync", errno.EDQUOT, EnvironmentFailed, "make room on its disk"),
        ("pathlib.Path.replace", errno.EACCES, Misconfigured, "allow writing in"),
    ],
)
def test_a_failed_write_leaves_the_file_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, kind: type[HarnessError], remedy: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(function, fails)
    with pytest.raises(HarnessError, match=re.escape(remedy)) as error:
        use_new_discovery_url(file, PUBLIC, FakeSession(answer(200, NEW_URL)))
    assert type(error.value) is kind
    assert f"({os.strerror(number)}) and is as before" in str(error.value)
    assert file.read_bytes() == TFVARS.encode()
    assert list(file.parent.iterdir()) == [file]


def test_a_file_changed_while_the_service_was_asked_is_not_overwritten(file: Path) -> None:
    def meanwhile(_: str) -> requests.Response:
        file.write_text("machines = 5\n")
        return answer(200, NEW_URL)

    with pytest.raises(Misconfigured, match="was changed while"):
        use_new_discovery_url(file, PUBLIC, FakeSession(meanwhile))
    assert file.read_text() == "machines = 5\n"


def test_a_service_that_fails_leaves_the_file_as_it_was(file: Path) -> None:
    with pytest.raises(EnvironmentFailed):
        use_new_discovery_url(file, PUBLIC, FakeSession(answer(503)))
    assert file.read_bytes() == TFVARS.encode()
    assert list(file.parent.iterdir()) == [file]


def test_the_url_is_written_and_nothing_else_is_touched(file: Path) -> None:
    assert use_new_discovery_url(file, PUBLIC, FakeSession(answer(200, NEW_URL))) == NEW_URL
    assert file.read_bytes() == TFVARS.replace('""', f'"{NEW_URL}"').encode()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(file.parent.iterdir()) == [file]


def test_a_symlink_is_followed_and_stays(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.tfvars"
    link.symlink_to("../terraform.tfvars")
    use_new_discovery_url(link, PUBLIC, FakeSession(answer(200, NEW_URL)))
    assert link.is_symlink()
    assert not file.is_symlink()
    assert tfvars.read(file.read_text())["discovery_url"] == NEW_URL


@pytest.mark.parametrize(("written", "size"), [("1", "1"), ("3.0", "3"), ('"04"', "4"), ("100", "5")])
def test_the_size_is_one_member_a_machine_and_five_at_most(file: Path, written: str, size: str) -> None:
    file.write_text(f"machines = {written}")
    session = FakeSession(answer(200, NEW_URL))
    use_new_discovery_url(file, PUBLIC, session)
    assert session.asked == [("GET", f"{PUBLIC}/new", {"size": size})]
    assert file.read_text() == f'machines = {written}\ndiscovery_url = "{NEW_URL}"\n'


# --- real services on loopback


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


@pytest.fixture(scope="module")
def etcd_program() -> str:
    program = os.environ.get("PLATFORM_ETCD") or shutil.which("etcd")
    if not program or not os.access(program, os.X_OK):
        pytest.fail(
            f"no etcd program ({program or 'not on PATH, PLATFORM_ETCD not set'}): set-up provides it, run `make test`"
        )
    return program


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running_etcd(program: str, folder: Path, *options: str, answers: str = "/version") -> Iterator[str]:
    """An etcd of its own on loopback; gives its client address. It ends with the block."""
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    argv = [program, f"--data-dir={folder}/data", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", *options]  # fmt: skip
    if not any(option.startswith("--discovery") for option in options):
        argv.append(f"--initial-cluster=default={peer}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}

    def probe() -> int:
        if process.poll() is not None:
            raise AssertionError(f"etcd ended: {(folder / 'log').read_text()[-500:]}")
        try:
            return requests.get(client + answers, timeout=2, proxies={"http": ""}).status_code
        except requests.ConnectionError as error:
            raise NotYet(str(error)) from error

    with (folder / "log").open("w") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    recorder = Recorder(folder / "events.jsonl")
    try:
        Waiter(recorder, every=0.05).until("etcd answers", probe, lambda status: status == 200, within=8)
        yield client
    finally:
        recorder.close()
        process.kill()
        process.wait(5)


@pytest.fixture(scope="module")
def etcd(etcd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_etcd(etcd_program, tmp_path_factory.mktemp("etcd"), "--enable-v2") as address:
        yield address


@pytest.mark.parametrize("directory", ["", "/_etcd/registry", "/a/b/"])
def test_a_real_etcd_takes_a_new_token_each_time(etcd: str, session: requests.Session, directory: str) -> None:
    service = f"{etcd}/v2/keys{directory}"
    urls = [new_discovery_url(service, size, session) for size in (3, 5)]
    assert all(re.fullmatch(re.escape(service.rstrip("/")) + "/[0-9a-f]{32}", url) for url in urls)
    sizes = [session.get(f"{url}/_config/size", timeout=2).json()["node"]["value"] for url in urls]
    assert sizes == ["3", "5"]
    assert urls[0] != urls[1]


def test_a_token_that_is_in_use_is_refused(
    etcd: str, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_discovery_url(f"{etcd}/v2/keys", 3, session)
    monkeypatch.setattr("uuid.UUID.hex", url.rpartition("/")[2])
    with pytest.raises(Misconfigured, match="Key already exists"):
        new_discovery_url(f"{etcd}/v2/keys", 5, session)


def test_an_etcd_without_v2_keys_is_refused(etcd_program: str, tmp_path: Path, session: requests.Session) -> None:
    with (
        running_etcd(etcd_program, tmp_path) as address,
        pytest.raises(Misconfigured, match=r"has no v2 keys: .*--enable-v2"),
    ):
        new_discovery_url(f"{address}/v2/keys/_etcd/registry", 3, session)


def test_an_etcd_named_without_its_keys_is_refused(etcd: str, session: requests.Session) -> None:
    with pytest.raises(Misconfigured, match=r"status 404.*/v2/keys/_etcd/registry"):
        new_discovery_url(etcd, 3, session)


def test_a_cluster_forms_at_the_url_in_the_file(
    etcd: str, etcd_program: str, tmp_path: Path, session: requests.Session
) -> None:
    path = tmp_path / "terraform.tfvars"
    path.write_text("machines = 1\n")
    url = use_new_discovery_url(path, f"{etcd}/v2/keys/_etcd/registry", session)
    with running_etcd(etcd_program, tmp_path, f"--discovery={tfvars.read(path.read_text())['discovery_url']}"):
        members = session.get(url, timeout=2).json()["node"]["nodes"]
    assert [node["value"].startswith("default=http://127.0.0.1:") for node in members] == [True]


class PublicProtocol(BaseHTTPRequestHandler):
    """GET /new?size=N as discovery.etcd.io answers it; /drip never ends its answer."""

    def do_GET(self) -> None:
        if self.path == "/new?size=3":
            host, port = self.connection.getsockname()
            self.say(200, f"http://{host}:{port}/{'ab' * 16}".encode())
        elif self.path.startswith(f"/{'ab' * 16}"):
            self.say(200, under(3)[self.path.removeprefix(f"/{'ab' * 16}")].encode())
        elif self.path.startswith("/drip/new"):
            self.say(200, b"http://h/", length=1000)
            with contextlib.suppress(ConnectionError):
                while not self.server.ended.wait(0.02):  # type: ignore[attr-defined]
                    self.wfile.write(b"x")
        else:
            self.say(404, b"404 page not found\n")

    def say(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def public() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), PublicProtocol) as server:
        server.ended = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.ended.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def test_a_real_service_of_the_public_protocol_gives_a_url(public: str, session: requests.Session) -> None:
    assert new_discovery_url(public, 3, session) == f"{public}/{'ab' * 16}"
    with pytest.raises(Misconfigured, match="status 404, `404 page not found`"):
        new_discovery_url(f"{public}/elsewhere", 3, session)


def test_a_closed_port_and_a_name_that_is_no_host_are_told_apart(session: requests.Session) -> None:
    (port,) = free_ports(1)
    with pytest.raises(EnvironmentFailed, match=r"cannot be reached \(Connection refused\): start it"):
        new_discovery_url(f"http://127.0.0.1:{port}/v2/keys", 3, session)
    with pytest.raises(Misconfigured, match="is not a usable address"):
        new_discovery_url(f"http://{'a' * 64}.example", 3, session)


def test_tls_to_a_service_without_it_says_so(public: str, session: requests.Session) -> None:
    with pytest.raises(Misconfigured, match="correct http or https"):
        new_discovery_url(public.replace("http", "https"), 3, session)


def test_a_service_that_is_silent_or_never_ends_is_given_up(
    public: str, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "LIMIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for service in (f"http://127.0.0.1:{silent.getsockname()[1]}", f"{public}/drip"):
            with pytest.raises(EnvironmentFailed, match=r"did not answer within 0.2 s"):
                new_discovery_url(service, 3, session)


# --- the command line


@pytest.fixture
def here(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's working folder, with terraform.tfvars in it and no service set."""
    monkeypatch.chdir(file.parent)
    monkeypatch.delenv("DISCOVERY_SERVICE", raising=False)
    return file


@pytest.mark.parametrize("argv", [["--size", "3"], ["--service"], ["more"], ["--serv", "http://x"]])
def test_wrong_usage_ends_with_4(here: Path, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert main(argv) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "use-new-discovery-url: error: " in err


@pytest.mark.parametrize("empty", [None, ""])
def test_without_a_service_it_says_how_to_set_one(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty: str | None
) -> None:
    if empty is not None:
        monkeypatch.setenv("DISCOVERY_SERVICE", empty)
    assert main([]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(
        "use-new-discovery-url: no discovery service is given, and the public discovery.etcd.io is no"
    )
    assert "set DISCOVERY_SERVICE or --service" in err
    assert err.count("\n") == 1


def test_an_error_is_one_line_and_its_status(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main(["--service", f"http://127.0.0.1:{port}"]) == 6
    assert main(["--service", "nonsense"]) == 4
    assert main(["--service", "http://127.0.0.1", "--file", "two\nlines"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.startswith("use-new-discovery-url: ") for line in err.splitlines()] == [True] * 3
    assert here.read_bytes() == TFVARS.encode()


def test_it_prints_the_url_and_says_where_it_is(
    here: Path, public: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCOVERY_SERVICE", public)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no proxy is asked
    url = f"{public}/{'ab' * 16}"
    assert main([]) == 0
    assert capsys.readouterr() == (f"{url}\n", "discovery_url set in terraform.tfvars\n")
    assert here.read_bytes() == TFVARS.replace('""', f'"{url}"').encode()


def test_options_go_before_the_environment(
    here: Path, public: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCOVERY_SERVICE", "nonsense")
    Path("other.tfvars").write_text("machines = 3\n")
    assert main(["--service", public, "--file", "other.tfvars"]) == 0
    assert capsys.readouterr().err == "discovery_url set in other.tfvars\n"
    assert here.read_bytes() == TFVARS.encode()


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--service URL" in capsys.readouterr().out


def test_the_command_hands_its_arguments_to_platform(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    command = shutil.copy(Path(__file__).parent.parents[1] / "bin" / "use-new-discovery-url", folder)
    platform = folder / "platform"
    platform.write_text('#!/bin/sh\nprintf "[%s]" "$@"\nexit 6\n')
    platform.chmod(0o755)
    ended = subprocess.run([command, "--file", "x y", ""], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (6, "[use-new-discovery-url][--file][x y][]", "")
