"""The runbook's `./bin/use-new-discovery-url`: a new discovery URL, written into terraform.tfvars.

The members of a new cluster meet at a discovery URL, and every cluster that is made needs a new one: etcd refuses a
token that was used before. Two kinds of service give one:

    http://HOST:2379/v2/keys/DIRECTORY   a plain etcd with v2 keys (3.4 and 3.5 with --enable-v2; 3.6 has none); the
                                         token is made here, the size is put under TOKEN/_config/size
    any other URL                        the public protocol: GET SERVICE/new?size=N answers with the URL

Sources: etcd-io/discovery.etcd.io; etcd 3.4 Documentation/dev-internal/discovery_protocol.md. The answers of an etcd
are those of Debian's 3.4.23.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import requests

from harness import files
from harness.drivers.etcd import MEMBERS_AT_MOST
from harness.errors import EnvironmentFailed, ExitStatus, HarnessError, Misconfigured
from harness.model import tfvars
from harness.text import one_line

COMMAND = "use-new-discovery-url"
IF_MISSING = f"copy terraform.example.tfvars to {tfvars.FILE} first"
HOW_TO_SET = (
    "set DISCOVERY_SERVICE or --service to your own, such as http://HOST:2379/v2/keys/_etcd/registry "
    "(an etcd 3.4 or 3.5 with --enable-v2)"
)
# Seconds for a connection, for each wait for bytes, and for the whole of an answer's body.
LIMIT = 5.0
# An answer is a line or a small JSON document; of a longer one (a web page) this many bytes are read. A discovery URL
# has fewer characters than those bytes can make, so that a cut one is not taken for one.
ANSWER_BYTES = 4096
URL_CHARACTERS = ANSWER_BYTES // 4 - 1

_URL = re.compile(r"https?://[^\s/?#@\"'<>\\]+(/[^\s?#\"'<>\\]*)?")
_V2_KEYS = re.compile(r"/v2/keys(/|$)")


class Session(Protocol):
    """What this module needs of a requests.Session; the caller makes it, with `trust_env` off."""

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = True,
        stream: bool | None = None,
    ) -> requests.Response: ...


@dataclass(frozen=True)
class _Answer:
    status: int
    text: str
    location: str


def new_discovery_url(service: str, size: int, session: Session) -> str:
    """A discovery URL nobody has used yet, for an etcd cluster of `size` members, from `service` (see the head).

    What the service gave is asked for its size and its members before anybody relies on it. Raises EnvironmentFailed
    when the service is out of reach, too slow (LIMIT) or fails itself; Misconfigured when `service` is no URL, answers
    as no discovery service does, or gave a URL that no new cluster can use.
    """
    path = _service_path(service)
    base = service.rstrip("/")
    if _V2_KEYS.search(path):
        url = _from_etcd(base, size, session)
    else:
        address = base if path.rstrip("/").endswith("/new") else f"{base}/new"
        url = _from_discovery(address, size, session)
        # a service that runs elsewhere gives the public one's URLs unless it is told its own (etcd-io/discovery, -host)
        given, asked = (urllib.parse.urlsplit(it).hostname for it in (url, service))
        if given != asked:
            raise Misconfigured(
                f"discovery service {service} gave a URL of another host, {_shown(url)}: tell it its own address, or "
                f"{HOW_TO_SET}"
            )
    _verify(url, size, session)
    return url


def use_new_discovery_url(path: Path, service: str, session: Session) -> str:
    """A new discovery URL for a cluster of as many machines as the file says; it is `discovery_url` in the file from
    now on. It is for one etcd member a machine, but for MEMBERS_AT_MOST: the machines beyond are proxies.

    The service is asked only when the file is sound, and the file is replaced as a whole or not at all. Raises
    Misconfigured, or EnvironmentFailed as `new_discovery_url` does and when the disk is full.
    """
    text = files.read(path, if_missing=IF_MISSING)
    machines = _machines(text, path)
    tfvars.set_string(text, "discovery_url", "", str(path))  # a value that cannot be replaced is found before asking
    files.refuse_write_protected(path)
    url = new_discovery_url(service, min(machines, MEMBERS_AT_MOST), session)
    before = tfvars.assignments(text, str(path)).get("discovery_url")
    if before is not None and before.value == url:
        raise Misconfigured(f"discovery service {service} gave the URL that {path} holds already, and it is used up")
    if files.read(path, if_missing=IF_MISSING) != text:
        raise Misconfigured(f"{path} was changed while the discovery service was asked: run {COMMAND} again")
    files.replace(path, tfvars.set_string(text, "discovery_url", url, str(path)))
    return url


def main(argv: Sequence[str]) -> int:
    """The command line, without the program's name; prints the new URL and gives the exit status."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said why; its own status for wrong usage, 2, means "interrupted" here
        return ExitStatus.MISCONFIGURED if stop.code else ExitStatus.VERIFIED
    try:
        with requests.Session() as session:
            session.trust_env = False
            url = use_new_discovery_url(options.file, _service(options.service), session)
    except HarnessError as error:
        print(f"{COMMAND}: {one_line(str(error))}", file=sys.stderr)
        return error.status
    print(url, flush=True)
    print(f"discovery_url set in {options.file}", file=sys.stderr)
    return ExitStatus.VERIFIED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        allow_abbrev=False,
        description="Writes a new discovery URL into terraform.tfvars. Every new cluster needs one; "
        "adding or rebooting machines does not.",
    )
    parser.add_argument("--service", metavar="URL", help="discovery service (default: $DISCOVERY_SERVICE)")
    parser.add_argument("--file", metavar="FILE", type=Path, default=Path(tfvars.FILE), help="default: %(default)s")
    return parser


def _service(given: str | None) -> str:
    service = given or os.environ.get("DISCOVERY_SERVICE")
    if not service:
        raise Misconfigured(
            f"no discovery service is given, and the public discovery.etcd.io is no longer dependable: {HOW_TO_SET}"
        )
    return service


# --- the service


def _service_path(service: str) -> str:
    """The path of the service's URL; raises Misconfigured when it is none that a token can be put behind."""
    try:
        parts = urllib.parse.urlsplit(service)
        usable = _URL.fullmatch(service) and parts.hostname and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        usable = False
    if not usable:
        raise Misconfigured(
            f"discovery service {_shown(service)} is not a plain http:// or https:// URL "
            f"(without user, ? and #): {HOW_TO_SET}"
        )
    return parts.path


def _from_etcd(base: str, size: int, session: Session) -> str:
    token = uuid.uuid4().hex
    url = f"{base}/{token}"
    form = {"value": str(size), "prevExist": "false"}
    answer = _ask(session, "PUT", f"{url}/_config/size", data=form)
    if answer.status == 404:
        raise Misconfigured(f"discovery service {base} has no v2 keys: {HOW_TO_SET}; etcd 3.6 cannot")
    if answer.status != 201:
        raise Misconfigured(f"discovery service {base} did not take the token: {_told(answer)}; {HOW_TO_SET}")
    if not _confirms(answer.text, f"/{token}/_config/size", str(size)):
        raise Misconfigured(f"discovery service {base} is not an etcd: {_told(answer)}; {HOW_TO_SET}")
    return url


def _confirms(text: str, key: str, value: str) -> bool:
    """Whether an etcd says it has made the key: {"action":"create","node":{"key":"/...","value":"3",...}}."""
    try:
        node = json.loads(text)["node"]
        return str(node["key"]).endswith(key) and bool(node["value"] == value)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _from_discovery(address: str, size: int, session: Session) -> str:
    answer = _ask(session, "GET", address, params={"size": str(size)})
    if answer.status != 200:
        raise Misconfigured(f"{address} gave no discovery URL: {_told(answer)}; {HOW_TO_SET}")
    url = answer.text.strip()
    found = _URL.fullmatch(url)
    if not found or not (found[1] or "").strip("/") or len(answer.text) > URL_CHARACTERS:
        raise Misconfigured(
            f"{address} gave no discovery URL, so is no discovery service: {_told(answer)}; {HOW_TO_SET}"
        )
    return url


def _verify(url: str, size: int, session: Session) -> None:
    """Raises Misconfigured unless the URL is for `size` members, and none has registered."""
    said = _node(url, "/_config/size", session).get("value")
    if said != str(size):
        raise Misconfigured(f"the discovery URL {url} is for {_shown(str(said))} members and not for {size}: try again")
    if members := _node(url, "", session).get("nodes"):
        raise Misconfigured(f"the discovery URL {url} was used before, by {len(members)} members: try again")


def _node(url: str, path: str, session: Session) -> dict[str, Any]:
    """What is under a discovery URL, as etcd's v2 keys tell it."""
    answer = _ask(session, "GET", url + path)
    try:
        return dict(json.loads(answer.text)["node"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Misconfigured(f"nothing is known under the discovery URL {url}: {_told(answer)}; {HOW_TO_SET}") from None


def _ask(
    session: Session,
    method: str,
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
) -> _Answer:
    """What the service answers; redirects are not followed, for they lead to login pages."""
    try:
        with session.request(
            method, url, params=params, data=data, timeout=LIMIT, allow_redirects=False, stream=True
        ) as response:
            answer = _Answer(response.status_code, _body(response), response.headers.get("Location", ""))
    except requests.Timeout as error:
        raise EnvironmentFailed(f"discovery service {url} did not answer within {LIMIT:g} s: is it running?") from error
    except requests.exceptions.SSLError as error:
        raise Misconfigured(
            f"discovery service {url} does not speak TLS that can be trusted ({_reason(error)}): "
            "correct http or https, or its certificate"
        ) from error
    except ValueError as error:  # requests and urllib3: addresses they cannot make a host of; they are ValueErrors too
        raise Misconfigured(f"discovery service {url} is not a usable address ({_reason(error)})") from error
    except requests.RequestException as error:
        raise EnvironmentFailed(
            f"discovery service {url} cannot be reached ({_reason(error)}): start it, or {HOW_TO_SET}"
        ) from error
    if answer.status >= 500 or answer.status == 429:
        raise EnvironmentFailed(f"discovery service {url} fails itself: {_told(answer)}; try again later")
    return answer


def _body(response: requests.Response) -> str:
    """The beginning of the answer; byte by byte, so that one which drips is given up as well."""
    body, deadline = b"", time.monotonic() + LIMIT
    for byte in response.iter_content(1):
        body += byte
        if len(body) >= ANSWER_BYTES:
            break
        if time.monotonic() > deadline:
            raise requests.Timeout("the answer does not end")
    return body.decode("utf-8", "replace")


def _told(answer: _Answer) -> str:
    """The answer in a few words, for a message."""
    if answer.location:
        return f"status {answer.status}, a redirect to {_shown(answer.location)}"
    try:
        fault = json.loads(answer.text)
        said = f"{fault['message']} ({fault['cause']})"  # an etcd's
    except (ValueError, KeyError, TypeError, RecursionError):
        said = answer.text
    return f"status {answer.status}, {_shown(said) if said.strip() else 'empty answer'}"


def _shown(text: str) -> str:
    """The first line of a foreign text: short, and harmless to a terminal."""
    line = (text.strip().splitlines() or [""])[0]
    line = "".join(c if c.isprintable() else "?" for c in line)
    return f"`{line if len(line) <= 120 else line[:117] + '...'}`"


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words: `Connection refused`, `Name or service not known`."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    said = error.strerror if isinstance(error, OSError) else None
    return _shown(str(said or error) or type(error).__name__).strip("`")


# --- the number of machines


def _machines(text: str, path: Path) -> int:
    """The number of machines; like Terraform it takes 3, 3.0 and "3"."""
    found = tfvars.assignments(text, str(path)).get("machines")
    if found is None:
        raise Misconfigured(f"{path} does not say how many machines: add the line machines = 3")
    number = found.value
    if isinstance(number, str) and re.fullmatch(r"[0-9]{1,9}", number):
        number = int(number)
    if not isinstance(number, int | float) or number < 1 or number != number // 1:
        raise Misconfigured(
            f"{path} line {found.line}: machines must be a whole number from 1 on, such as machines = 3"
        )
    return int(number)
