"""Rules of what people get: contents on the machines, ports, names, and the sites through every entry point."""

from __future__ import annotations

import re
from dataclasses import replace

from harness.model.registration import is_address
from harness.rules.finding import ALL, Found, Subject, Wrong, answering, on, rule, unanswered
from harness.rules.units import LEADS_ELSEWHERE
from harness.snapshot.data import Answer, Snapshot

NONE = Answer(failed="no answer")
# Names that a finding lists; the report has all
SHOWN = 5
# How a broken link ends, or a file, that the site itself gave no answer to
NO_ANSWER = re.compile(r": 5\d\d$")
# How the answer begins that leads to another host (harness/drivers/site.py)
LEADS_OUTSIDE = "leads outside"
# Where an answer comes from that is not the site's: a route, or a filter's rule, that leads elsewhere, another image;
# contents that are older or another's
LED_ASTRAY = ("entry-has-routes", *LEADS_ELSEWHERE)
OF_OTHERS = ("contents-are-held", *LED_ASTRAY)
OF_SITES = ("site-answers otherwise", *OF_OTHERS)
# Why a name leads to what is no entry point: what tells the name server does not run, or runs twice
NAMED_BY = ("unit-is-held", "unit-is-wanted", "unit-is-placed", "unit-runs", "unit-runs-nowhere-else")


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _absent(answer: Answer) -> bool:
    """Whether a site did not answer: its entry point says so, or nobody does."""
    return answer.status >= 500 or bool(answer.failed and not answer.failed.startswith(LEADS_OUTSIDE))


def _again(site: str) -> str:
    return f"./bin/deploy-blog {site} sites/{site}"


@rule(
    "content",
    "the units' helper files are on every machine, byte for byte",
    needs=("helpers",),
    explains=("unit-runs", "entry-has-routes"),
)
def helpers_are_there(now: Snapshot) -> Found:
    for name, machine in answering(now):
        if machine.helpers:
            lines = tuple(f"{path} {'differs' if digest else 'is missing'}" for path, digest in machine.helpers.items())
            paste = on(name, f"ls -l /home/core/{next(iter(machine.helpers))}")
            follows = () if any(machine.helpers.values()) else None
            subject = Subject("helper files", "", name)
            yield Wrong(subject, "as in container/", _some(lines), paste=paste, follows=follows)


@rule("content", "the cluster remembers what was deployed last", needs=("deployed",), explains=("contents-are-held",))
def deployment_is_remembered(now: Snapshot) -> Found:
    for site in now.intended.deployed:
        if site not in (now.deployed or {}):
            seen, follows = ("none", ()) if now.deployed is not None else ("no machine's etcd tells it", None)
            wrong = Wrong(Subject("contents of", site), "a version in etcd", seen, paste=_again(site), follows=follows)
            absent = ("deployed",) if now.deployed is None else ()
            yield replace(wrong, untold=not now.answering, absent=absent)


@rule(
    "content",
    "every machine holds what was deployed last, and no other file",
    needs=("deployed", "contents"),
    explains=("site-answers", "site-is-whole", "site-is-as-deployed", "sites-are-apart"),
)
def contents_are_held(now: Snapshot) -> Found:
    for site, deployed in (now.deployed or {}).items():
        for name, machine in answering(now):
            held = machine.contents.get(site)
            if site not in now.intended.deployed:
                continue
            if held is None or (held.version, held.digest) != (deployed.version, deployed.digest):
                seen, follows = "nothing" if held is None else f"version {held.version}", None
                if held and held.version == deployed.version:
                    seen, follows = f"{seen}, and {held.files} files that are not as they were deployed", ()
                expected = f"version {deployed.version}, as it was deployed"
                subject = Subject("contents of", site, name)
                yield Wrong(subject, expected, seen, paste=_again(site), follows=follows)


# -- entry -------------------------------------------------------------------------------------------------------------


@rule("entry", "every port that is tried from outside is found open or closed", needs=("ports",), costly=True)
def ports_are_told(now: Snapshot) -> Found:
    return unanswered(now, "ports", Subject("ports"))


@rule(
    "entry", "SSH of every machine and HTTP of every entry point are open to the outside", needs=("ports",), costly=True
)
def port_is_open(now: Snapshot) -> Found:
    for name, found in (now.outside.ports or {}).items():
        for port in sorted(set(now.intended.ports) - set(found)):
            if port != 80 or (now.intended.started and name in now.intended.entry_points):
                yield Wrong(Subject("port", str(port), name), "open to the outside", "closed")


@rule("entry", "nothing else of any machine is open to the outside", needs=("ports",), costly=True)
def port_is_closed(now: Snapshot) -> Found:
    for name, found in (now.outside.ports or {}).items():
        for port in sorted(set(found) & set(now.intended.closed)):
            subject = Subject("port", str(port), name)
            yield Wrong(subject, "closed to the outside", "open", follows=("filter-is-loaded", "filter-is-declared"))


@rule(
    "entry",
    "every entry point has a route to each site's ambassador",
    needs=("containers", "routes"),
    explains=("site-answers", ALL),
)
def entry_has_routes(now: Snapshot) -> Found:
    expected = {domain: site for site, domain in now.intended.sites.items()}
    for name, machine in answering(now):
        container = (machine.containers or {}).get("entry")
        if container and container.state == "running" and machine.routes != expected:
            seen = ", ".join(f"{domain} to {site}" for domain, site in machine.routes.items()) or "none"
            routes = ", ".join(f"{domain} to {site}" for domain, site in expected.items())
            paste = on(name, "cat /run/entry/entry.conf")
            subject, follows = Subject("entry point", "", name), ("helpers-are-there", "unit-runs")
            yield Wrong(subject, f"routes {routes}", seen, paste=paste, follows=follows)


@rule(
    "entry",
    "every entry point answers for each site with what was deployed last",
    needs=("deployed", "sites"),
    explains=("sites-are-walked", "site-is-whole", "site-is-as-deployed", "sites-are-apart"),
)
def site_answers(now: Snapshot) -> Found:
    for site in now.intended.deployed:
        deployed = (now.deployed or {}).get(site)
        for name in now.intended.entry_points:
            answer = now.outside.sites.get(site, {}).get(name, NONE)
            domain, address = now.intended.sites[site], now.intended.machines[name]
            paste = f"curl -si -H 'Host: {domain}' http://{address}/version.txt"
            subject = Subject("site", site, name)
            if answer.failed or answer.status != 200:
                seen, follows = answer.failed or f"status {answer.status}", None if _absent(answer) else OF_OTHERS
                yield Wrong(subject, "status 200", seen, paste=paste, follows=follows)
            elif deployed and answer.version != deployed.version:
                seen = f"version {answer.version or 'unknown'}"
                yield Wrong(subject, f"version {deployed.version}", seen, paste=paste, follows=OF_OTHERS)


@rule("entry", "a walk of each site ends", needs=("walks",), costly=True)
def sites_are_walked(now: Snapshot) -> Found:
    return unanswered(now, "walks", *(Subject("site", site) for site in now.intended.sites))


@rule(
    "entry",
    "every link and asset of each site answers",
    needs=("walks",),
    explains=("site-is-as-deployed", "sites-are-apart"),
    costly=True,
)
def site_is_whole(now: Snapshot) -> Found:
    for site, walk in (now.outside.walks or {}).items():
        if site not in now.intended.deployed:
            continue
        if walk.failed:
            yield Wrong(Subject("site", site), "a walk from its home page", walk.failed)
        elif walk.broken:
            follows = None if all(NO_ANSWER.search(line) for line in walk.broken) else OF_SITES
            yield Wrong(Subject("site", site), "no broken link", _some(walk.broken), follows=follows)


@rule("entry", "each site serves exactly what was deployed", needs=("walks",), costly=True)
def site_is_as_deployed(now: Snapshot) -> Found:
    for site, walk in (now.outside.walks or {}).items():
        if site not in now.intended.deployed:
            continue
        expected = "every file as it was deployed"
        if walk.failed or not walk.files:
            yield Wrong(Subject("site", site), expected, walk.failed or "no machine holds a file of it")
        elif walk.differing:
            absent = all(NO_ANSWER.search(line) for line in walk.differing)
            seen = f"{'no answer' if absent else 'other bytes'}: {_some(walk.differing)}"
            follows = None if absent else OF_SITES
            yield Wrong(Subject("site", site), expected, seen, follows=follows)


@rule("entry", "no site serves a page of another", needs=("walks",), costly=True)
def sites_are_apart(now: Snapshot) -> Found:
    for site, walk in (now.outside.walks or {}).items():
        if walk.foreign:
            seen, follows = f"another site's: {_some(walk.foreign)}", OF_SITES
            yield Wrong(Subject("site", site), "pages of its own", seen, follows=follows)
        elif site in now.intended.deployed and not walk.pages:
            yield Wrong(Subject("site", site), "pages of its own", walk.failed or "no page")


@rule("entry", "a name that is no site's gets none", needs=("stranger",))
def stranger_gets_nothing(now: Snapshot) -> Found:
    answer = now.outside.stranger or NONE
    if now.intended.started and answer.status != 404:
        seen = answer.failed or f"status {answer.status}"
        follows = None if _absent(answer) else LED_ASTRAY
        yield Wrong(Subject("entry point"), "status 404 for a name that is no site's", seen, follows=follows)


@rule("entry", "it is known where the sites' names lead", needs=("names",))
def names_are_told(now: Snapshot) -> Found:
    return unanswered(now, "names", *(Subject("name", domain) for domain in now.intended.sites.values()))


@rule("entry", "the sites' names lead to one entry point of the cluster", needs=("names",))
def name_leads(now: Snapshot) -> Found:
    names = now.outside.names if now.intended.started else None
    entry_points = [now.intended.machines[name] for name in now.intended.entry_points]
    first = next((address for address in (names or {}).values() if address in entry_points), "")
    for domain, address in (names or {}).items():
        paste = f"dig @{now.intended.name_server} {domain}"
        if address not in entry_points:
            seen, follows = address or "no address", NAMED_BY if is_address(f"{address}:53") else None
            yield Wrong(Subject("name", domain), "the address of an entry point", seen, paste=paste, follows=follows)
        elif address != first:
            seen = f"{address}, and another name leads elsewhere"
            subject, expected = Subject("name", domain), "the same entry point as the other names"
            yield Wrong(subject, expected, seen, paste=paste, follows=NAMED_BY)
