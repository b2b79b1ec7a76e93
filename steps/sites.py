"""The sites, asked over HTTP through the entry point."""

from __future__ import annotations

from pytest_bdd import parsers, then

from harness.drivers.cluster import Cluster
from harness.drivers.shell import OperatorShell
from harness.runs.watch import Watch
from harness.seams.process import Result
from harness.snapshot.intended import HELPERS
from steps.phrases import SEEN, phrase, require


@then(phrase('site "{site:Name}" tells the version that the operator was given'))
def site_tells_given_version(cluster: Cluster, answer: Result, site: str) -> None:
    seen, expected = cluster.sites[site].version(), answer.stdout.strip()
    require(
        seen == expected, f"{site} tells its version", expected=expected, seen=seen, where=cluster.sites[site].domain
    )


@then(phrase('site "{site:Name}" serves exactly the files of "{folder:Name}"'))
def site_serves_folder(cluster: Cluster, operator: OperatorShell, site: str, folder: str) -> None:
    seen = cluster.sites[site].differences(operator.cwd / folder)
    require(not seen, f"{site} serves {folder}", expected="every file byte for byte", seen=seen)


@then(
    parsers.parse(
        "every machine holds every site as it was deployed last, and no other file, within {seconds:d} seconds"
    )
)
def machines_hold_releases(watch: Watch, seconds: int) -> None:
    watch.until("every machine holds every site", (*SEEN, "deployment-is-remembered", "contents-are-held"), seconds)


@then(parsers.parse("every link and asset of every site answers within {seconds:d} seconds"))
def links_answer(watch: Watch, seconds: int) -> None:
    watch.until("every link and asset of every site answers", ("site-is-whole",), seconds)


@then(parsers.parse("every site serves exactly what was deployed last within {seconds:d} seconds"))
def sites_serve_releases(watch: Watch, seconds: int) -> None:
    watch.until("every site serves what was deployed last", ("site-is-as-deployed",), seconds)


@then("no site serves a page of another")
def sites_are_apart(watch: Watch) -> None:
    watch.until("no site serves a page of another", ("sites-are-apart",), 0)


@then(parsers.parse("a request for a name that is no site's gets status 404 within {seconds:d} seconds"))
def stranger_gets_nothing(watch: Watch, seconds: int) -> None:
    watch.until("a name that is no site's gets none", ("stranger-gets-nothing",), seconds)


@then(phrase('every file of "{folder:Name}" is on every machine, byte for byte, within {seconds:d} seconds'))
def helper_files_are_there(watch: Watch, folder: str, seconds: int) -> None:
    require(folder == HELPERS, "that is the folder of the helper files", expected=HELPERS, seen=folder)
    watch.until("the units' helper files are on every machine", (*SEEN, "helpers-are-there"), seconds)


@then(parsers.parse("every entry point answers for every site with what was deployed last within {seconds:d} seconds"))
def entry_points_answer(watch: Watch, seconds: int) -> None:
    watch.until("every entry point answers for every site", ("deployment-is-remembered", "site-answers"), seconds)


@then(parsers.parse("nothing else is wrong within {seconds:d} seconds"))
def nothing_else_is_wrong(watch: Watch, seconds: int) -> None:
    """All that no step before has asked for."""
    watch.until("nothing else is wrong", watch.others(), seconds)
