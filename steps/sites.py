"""The sites, asked over HTTP through the entry point."""

from __future__ import annotations

from pytest_bdd import parsers, then

from harness.drivers.cluster import Cluster
from harness.drivers.shell import OperatorShell
from harness.errors import AnswerNotUnderstood
from harness.seams.http import SiteUnreachable
from harness.seams.process import Result
from harness.seams.wait import Waiter
from steps.phrases import phrase, require


@then(phrase('site "{site:Name}" tells the version that the operator was given'))
def site_tells_given_version(cluster: Cluster, answer: Result, site: str) -> None:
    seen, expected = cluster.sites[site].version(), answer.stdout.strip()
    require(
        seen == expected, f"{site} tells its version", expected=expected, seen=seen, where=cluster.sites[site].domain
    )


@then(phrase('site "{site:Name}" tells the version that was deployed last'))
def site_tells_deployed_version(cluster: Cluster, site: str) -> None:
    seen, expected = cluster.sites[site].version(), cluster.contents.deployed_last(site).version
    again = f"./bin/deploy-blog {site} sites/{site}"
    require(
        seen == expected,
        f"{site} is up to date",
        expected=expected,
        seen=seen,
        where=cluster.sites[site].domain,
        paste=again,
    )


@then(phrase('site "{site:Name}" serves exactly the files of "{folder:Name}"'))
def site_serves_folder(cluster: Cluster, operator: OperatorShell, site: str, folder: str) -> None:
    seen = cluster.sites[site].differences(operator.cwd / folder)
    require(not seen, f"{site} serves {folder}", expected="every file byte for byte", seen=seen)


@then(phrase('every machine holds every file of "{site:Name}" as it was deployed last, and no other'))
def machines_hold_release(cluster: Cluster, site: str) -> None:
    seen, expected = cluster.contents.digests(site), cluster.contents.deployed_last(site).digest
    require(
        set(seen.values()) == {expected},
        f"every machine holds {site} as it was deployed",
        expected=f"files with digest {expected}",
        seen={name: digest for name, digest in seen.items() if digest != expected},
        paste=f"./bin/deploy-blog {site} sites/{site}",
    )


@then(phrase('every machine holds the version of "{site:Name}" that the site tells'))
def machines_hold_version(cluster: Cluster, site: str) -> None:
    seen, expected = cluster.contents.versions(site), cluster.sites[site].version()
    require(set(seen.values()) == {expected}, f"every machine holds {site}", expected=expected, seen=seen)


@then(phrase('site "{site:Name}" answers with status {status:d} and type "{media_type:Name}"'))
def site_answers(cluster: Cluster, site: str, status: int, media_type: str) -> None:
    page = cluster.sites[site].fetch("/")
    require(
        (page.status, page.media_type) == (status, media_type),
        f"{site} answers",
        expected=f"{status} {media_type}",
        seen=f"{page.status} {page.media_type}",
        where=page.url,
    )


@then(phrase('every link and asset of site "{site:Name}" answers'))
def links_answer(cluster: Cluster, site: str) -> None:
    broken = [str(link) for link in cluster.sites[site].broken_links(cluster.contents.files(site))]
    require(not broken, f"every link of {site} answers", expected="no broken link", seen=broken)


@then(phrase('site "{site:Name}" serves exactly the contents deployed as "{deployed:Name}"'))
def site_serves_deployed(cluster: Cluster, site: str, deployed: str) -> None:
    wrong = cluster.contents.differences(deployed, cluster.sites[site])
    require(not wrong, f"{site} serves what was deployed as {deployed}", expected="the same files", seen=wrong)


@then(phrase('site "{site:Name}" serves no page of site "{other:Name}"'))
def site_serves_nothing_of(cluster: Cluster, site: str, other: str) -> None:
    """Pages: a stylesheet or a logo may well be the same in two languages."""
    own = {page.body for page in cluster.sites[site].pages(cluster.contents.files(site))}
    shared = [page.url for page in cluster.sites[other].pages(cluster.contents.files(other)) if page.body in own]
    require(own and not shared, f"{site} and {other} share nothing", expected="no common page", seen=shared)


@then(parsers.cfparse('the entry point answers a request for "{name}" with status {status:d}'))
def entry_point_answers(cluster: Cluster, name: str, status: int) -> None:
    page = cluster.page_of(name)
    require(page.status == status, f"{name} is no site", expected=status, seen=page.status, where=page.url)


@then(
    phrase(
        'every machine, asked as the entry point, answers for site "{site:Name}" with what was deployed last '
        "within {seconds:d} seconds"
    )
)
def every_machine_is_entry(
    cluster: Cluster,
    waiter: Waiter,
    site: str,
    seconds: int,
) -> None:
    expected = cluster.contents.deployed_last(site).version

    def version_there(name: str) -> str:
        try:
            return cluster.site_at(site, cluster.machines.addresses[name]).version()
        except (SiteUnreachable, AnswerNotUnderstood) as failed:
            return failed.seen

    waiter.until(
        f"every machine is an entry point of {site}, version {expected}",
        lambda: cluster.machines.on_all(version_there),
        lambda seen: set(seen.values()) == {expected},
        within=seconds,
        paste="fleetctl list-units",
    )
