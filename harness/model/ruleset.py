"""The rules that the kernel filters packets by: which of them are neither the platform's nor Docker's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

# The platform's filter, what shuts fleetd's door to etcd (keep-places), and what a target cuts the network by
OURS = ("inet platform", "inet keep-places", "inet cut")
# Of Docker with nftables: all of it is in these
DOCKERS = re.compile(r"ip6? docker-bridges$")
# fail2ban makes its own when it first bans somebody: they are the host owner's
OWNERS = re.compile(r"f2b-")
TABLE, CHAIN = re.compile(r"table (\S+ \S+) \{"), re.compile(r"\tchain (\S+) \{")
# As iptables-legacy-save prints it, whose tables nft does not know
LEGACY_TABLE, LEGACY_CHAIN = re.compile(r"\*(\S+)$"), re.compile(r"(?:-A |:)(\S+) (.*)")
JUMPS = re.compile(r"(?:jump|goto|-[jg]) (?:DOCKER|f2b-)")
# A bridge of Docker's, or of the platform's network
BRIDGE = re.compile(r"(?:[io]ifname (?:!= )?\"|-[io] )(?:docker0|docker_gwbridge|platform0|br-[0-9a-f]{12})\b")
CLOSES = re.compile(r"\b(?:drop|reject)\b", re.IGNORECASE)
# An address that is published there only, and who could else come to it around Docker: from version 28 on
SHUT = re.compile(r"(?:\"lo\"|-i lo\b)")


def foreign(ruleset: str, known: Collection[str] = ()) -> tuple[str, ...]:
    """Rules, and policies that drop, that are nobody's: `FAMILY TABLE CHAIN: RULE`. What `nft list ruleset` and
    `iptables-legacy-save` print; chains that are `known` (`FAMILY TABLE CHAIN`) were there before the platform."""
    return tuple(
        f"{table} {chain}: {rule}"
        for table, chain, rule in _rules(ruleset)
        if table not in OURS
        and not DOCKERS.match(table)
        and not OWNERS.match(table.partition(" ")[2])
        and f"{table} {chain}" not in known
        and not _is_known(table, chain, rule)
    )


def _rules(ruleset: str) -> Iterator[tuple[str, str, str]]:
    """Table, chain and text of each rule, and of each policy; without counters and comments."""
    table = chain = ""
    for line in ruleset.splitlines():
        if found := TABLE.match(line):
            table, chain = found[1], ""
        elif found := CHAIN.match(line):
            chain = found[1]
        elif found := LEGACY_TABLE.match(line):
            table, chain = f"legacy {found[1]}", ""
        elif line.startswith("\t}"):
            chain = ""
        elif found := LEGACY_CHAIN.match(line):
            yield table, found[1], found[2] if line.startswith("-A") else f"policy {found[2].split()[0].lower()}"
        elif chain and line.startswith("\t\t"):
            text = re.sub(r" ?\bcounter( packets \d+ bytes \d+)?| ?comment \"[^\"]*\"", "", line).strip()
            if text:
                policy = re.search(r"policy (\w+);", text) if text.startswith("type ") else None
                yield table, chain, f"policy {policy[1]}" if policy else text


def _is_known(table: str, chain: str, rule: str) -> bool:
    """Whether it lets pass what it meets nothing of, is Docker's, or leads to what is."""
    if rule.startswith("policy "):
        return rule != "policy drop" or chain == "FORWARD"  # Docker closes that itself
    if chain == "DOCKER-USER":
        return rule in ("return", "-j RETURN")
    if OWNERS.match(chain) or JUMPS.search(rule):
        return True
    if CLOSES.search(rule):
        alone = not re.search(r"[ds]port", rule)
        own = chain.startswith("DOCKER") or (table.endswith(" raw") and re.search(r"daddr|-d ", rule))
        return bool(own and (SHUT.search(rule) or (alone and BRIDGE.search(rule))))
    if chain.startswith("DOCKER"):
        return rule in ("return", "-j RETURN") or bool(BRIDGE.search(rule) or "127.0.0.11" in rule)
    return bool(BRIDGE.search(rule)) or (chain == "POSTROUTING" and "masquerade" in rule.lower())
