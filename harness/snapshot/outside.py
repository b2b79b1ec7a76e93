"""What shows of a cluster where the operator is: ports, names, sites, the services behind it, the kernel's alarms."""

from __future__ import annotations

import hashlib
import shlex
import socket
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial

import requests

from harness.drivers.cluster import Cluster
from harness.drivers.site import Page, Site
from harness.errors import HarnessError, Misconfigured, PlatformWrong
from harness.model import links
from harness.model.unit_file import image_of
from harness.seams.background import begun, result_by
from harness.seams.http import open_session
from harness.seams.patience import patience
from harness.seams.ssh import keys_in_agent
from harness.seams.wait import NotAnswering
from harness.snapshot.data import Answer, Intended, Machine, Outside, Walk

NAME_SERVER = "name server"
REGISTRY = "image registry"
# Kinds of manifest that Docker asks for: the digest is of the one that it gets
MANIFESTS = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    )
)
DIGEST = "docker-content-digest"
STRANGER = "nobody.example"
LATE = "no answer in time"
# Seconds for one request to a backing service; and for one to a site, to connect and between two bytes: a machine that
# is frozen takes the connection and says nothing
ASK_LIMIT = 2.0
TIMEOUTS = (1.0, 3.0)

# What a backing service says: a status, and the digest of a manifest
Said = tuple[int, str]
# A site's walk, and URL -> digest of each page
Walked = tuple[Walk, dict[str, str]]


class OutsideView:
    """Asks from outside, side by side: begins when it is made, and gives its answers in the end.

    `backing` are the services that the cluster was made with, name -> URL; `kernel` gives the alarms in the kernel's
    log, where the machines do not see it themselves, and may raise HarnessError: Misconfigured where nobody here may
    read it. Closed ports, and walks of the sites, are what is `costly`. `asked` names the parts that are asked for.
    """

    def __init__(
        self,
        cluster: Cluster,
        intended: Intended,
        backing: Mapping[str, str],
        kernel: Callable[[], Iterable[str]] | None,
        *,
        costly: bool,
    ) -> None:
        self._cluster = cluster
        self._intended = intended
        self._costly = costly
        self._ports = begun(self._open_ports) if costly else None
        self._kernel = begun(lambda: tuple(kernel())) if kernel else None
        self._keys = begun(keys_in_agent)
        self._images = sorted({image for unit in intended.units.values() if (image := image_of(unit.options))})
        self._at = backing.get(REGISTRY, "")
        self._registry = begun(self._digests) if self._at else None
        others = {name: url for name, url in backing.items() if name != REGISTRY}
        self._backing = {name: begun(partial(self._unanswered, url)) for name, url in others.items()}
        at = {address: name for name, address in intended.machines.items()}
        self._backing_on = {name: at[host] for name, url in backing.items() if (host := _host_of(url)) in at}
        self._sites = {
            site: {name: begun(partial(self._answer, site, intended.machines[name])) for name in intended.entry_points}
            for site in intended.sites
        }
        self._stranger = begun(lambda: _asked(lambda: cluster.page_of(STRANGER, TIMEOUTS)))
        # of a cluster without a name server nobody can be asked
        named = intended.sites.values() if intended.name_server else ()
        self._names = {domain: begun(partial(self._name, domain)) for domain in named}
        asked = {"ports": costly, "walks": costly, "kernel": kernel is not None, "names": bool(self._names)}
        self.asked = {part for part, is_asked in asked.items() if is_asked}

    def answers(self, machines: Mapping[str, Machine], before: Outside | None, ends: float) -> Outside:
        """What was answered; what is costly and was not asked for is as it was before. `machines` are this look's.
        Sites whose walks have not ended by `ends` (seconds of the monotonic clock) were not walked."""
        late = Answer(failed=LATE)
        walking = self._walking(machines, ends) if self._costly else None
        names = {domain: result_by(future, ends) or ("", LATE) for domain, future in self._names.items()}
        sites = {
            site: {name: result_by(it, ends) or late for name, it in asked.items()}
            for site, asked in self._sites.items()
        }
        answered = {name: result_by(future, ends) for name, future in self._backing.items()}
        backing = {name: LATE if silent is None else silent for name, silent in answered.items()}
        images: dict[str, str] = {}
        if self._registry:
            backing[REGISTRY], images = result_by(self._registry, ends) or (LATE, {})
        if names:
            backing[NAME_SERVER] = max(silent for _, silent in names.values())
        kernel, refused = self._alarms(ends)
        return Outside(
            ports=result_by(self._ports, ends) if self._ports else before.ports if before else None,
            names={domain: address for domain, (address, _) in names.items()} if names else None,
            sites=sites,
            stranger=result_by(self._stranger, ends) or late,
            walks=self._walks(walking, ends) if walking is not None else before.walks if before else None,
            keys=result_by(self._keys, ends),
            backing=backing,
            kernel=kernel,
            kernel_refused=refused,
            backing_on=self._backing_on,
            registry=urllib.parse.urlsplit(self._at).netloc,
            images=images,
        )

    def _alarms(self, ends: float) -> tuple[tuple[str, ...] | None, str]:
        """Those in the kernel's log, and why nobody here may read it; then nobody has asked."""
        try:
            return result_by(self._kernel, ends) if self._kernel else None, ""
        except Misconfigured as refused:
            self.asked.discard("kernel")
            return None, str(refused)
        except HarnessError:
            return None, ""

    def _open_ports(self) -> dict[str, tuple[int, ...]]:
        ports = (*self._intended.ports, *self._intended.closed)
        return {name: tuple(found) for name, found in self._cluster.open_ports(ports).items()}

    def _answer(self, site: str, address: str) -> Answer:
        return _asked(lambda: self._cluster.site_at(site, address, TIMEOUTS).fetch("/version.txt"))

    def _name(self, domain: str) -> tuple[str, str]:
        """The address that a name leads to, and why the name server does not answer; "" for none."""
        try:
            return self._cluster.name_server.lookup(domain), ""
        except NotAnswering as silent:
            return "", silent.seen
        except PlatformWrong as failed:
            return failed.seen, ""

    def _unanswered(self, url: str) -> str:
        """Why a backing service does not answer; "" where it does."""
        return self._said(url, "GET")[0]

    def _digests(self) -> tuple[str, dict[str, str]]:
        """Why the image registry does not answer, and of each image that a unit names the digest of its manifest there;
        "" of one that it does not have."""
        parts = [image.rpartition(":") for image in self._images]
        silent, said = self._said(self._at, "HEAD", *(f"{self._at}{name}/manifests/{tag}" for name, _, tag in parts))
        digests = {}
        for image, (status, digest) in zip(self._images, said, strict=False):
            if status != 404 and not digest:
                silent = silent or f"status {status}, and no digest, for {image}"
            else:
                digests[image] = digest.removeprefix("sha256:") if status != 404 else ""
        return silent, digests

    def _said(self, url: str, method: str, *more: str) -> tuple[str, list[Said]]:
        """Why a backing service does not answer, "" where it does, and what it says to `more`. One on a machine answers
        to the cluster only."""
        limit = ASK_LIMIT * patience()
        try:
            host = _host_of(url)
            if host in self._intended.machines.values():
                machines, head = self._cluster.machines, " -I" if method == "HEAD" else ""
                ask = f"curl -sS -m {limit:g}{head} --fail-early -H {shlex.quote(f'Accept: {MANIFESTS}, */*')}"
                ask += f" --noproxy '*' -w '%{{http_code}} %header{{{DIGEST}}}\\n'"
                ask += "".join(f" -o /dev/null {shlex.quote(it)}" for it in (url, *more))
                lines = machines.run(machines.entry_point, ask).splitlines()
                said = [(int(status), digest) for status, _, digest in (line.partition(" ") for line in lines)]
            else:
                address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
                with open_session(str(address), [host], None, timeouts=(limit, limit)) as session:
                    headers = {"Accept": f"{MANIFESTS}, */*"}
                    asked = (session.request(method, it, headers=headers) for it in (url, *more))
                    said = [(answer.status_code, answer.headers.get(DIGEST, "")) for answer in asked]
            failed = next((f"status {status}" for status, _ in said if status >= 500), "" if said else "no answer")
        except (OSError, ValueError, HarnessError, requests.RequestException) as wrong:
            return getattr(wrong, "seen", "") or str(wrong), []
        return failed, said[1:]

    def _walking(self, machines: Mapping[str, Machine], ends: float) -> dict[str, Future[Walked]]:
        """Each site walked once, and what was deployed fetched where the walk did not lead to it; one that does not
        answer at its entry point is not walked."""
        entry = next((name for name, it in self._intended.machines.items() if it == self._intended.entry_point), "")
        return {
            name: begun(partial(self._walk_when_it_answers, site, self._sites[name].get(entry), machines, ends))
            for name, site in self._cluster.sites.items()
        }

    def _walk_when_it_answers(
        self, site: Site, answer: Future[Answer] | None, machines: Mapping[str, Machine], ends: float
    ) -> Walked:
        silent = (result_by(answer, ends) or Answer(failed=LATE)).failed if answer else ""
        return (Walk(pages=0, failed=silent), {}) if silent else self._walk(site, machines)

    def _walks(self, walking: Mapping[str, Future[Walked]], ends: float) -> dict[str, Walk] | None:
        """None where they take too long."""
        found = {name: walked for name, walk in walking.items() if (walked := result_by(walk, ends))}
        if len(found) < len(walking):
            return None
        bodies = {name: pages for name, (_, pages) in found.items()}
        return {
            name: Walk(
                pages=walk.pages,
                files=walk.files,
                broken=walk.broken,
                differing=walk.differing,
                failed=walk.failed,
                foreign=tuple(
                    sorted(
                        url
                        for other, theirs in bodies.items()
                        if other != name
                        for url, body in bodies[name].items()
                        if body in theirs.values()
                    )
                ),
            )
            for name, (walk, _) in found.items()
        }

    def _walk(self, site: Site, machines: Mapping[str, Machine]) -> Walked:
        held = {name: it.contents[site.name].digest for name, it in machines.items() if site.name in it.contents}
        # of a machine that has what most have: what one has by itself is no other one's to serve
        usual, _ = Counter(held.values()).most_common(1)[0] if held else ("", 0)
        holds = [name for name, digest in held.items() if digest == usual]
        try:
            digests = self._cluster.contents.file_digests(site.name, holds[0]) if holds else {}
            answers, broken = site.walk(len(digests) or None)
            served = {urllib.parse.urlsplit(page.url).path: page for page in answers}
            differing = []
            for path, digest in digests.items():
                url = "/" + urllib.parse.quote(path)
                page = served.get(url) or site.fetch(url)
                if page.status >= 500:
                    differing.append(f"{path}: {page.status}")
                elif hashlib.sha256(page.body).hexdigest() != digest:
                    differing.append(path)
        except PlatformWrong as failed:
            return Walk(pages=0, failed=str(failed)), {}
        pages = {
            page.url: hashlib.sha256(page.body).hexdigest()
            for page in answers
            if page.status == 200 and links.is_html(page.media_type)
        }
        return Walk(
            pages=len(answers), files=len(digests), broken=tuple(map(str, broken)), differing=tuple(sorted(differing))
        ), pages


def _host_of(url: str) -> str:
    """ "" where it is no URL."""
    try:
        return urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _asked(fetch: Callable[[], Page]) -> Answer:
    try:
        page = fetch()
    except PlatformWrong as failed:
        return Answer(failed=failed.seen or str(failed))
    version = page.text.strip()[:64] if page.media_type == "text/plain" else ""
    return Answer(status=page.status, version=version, media_type=page.media_type)
