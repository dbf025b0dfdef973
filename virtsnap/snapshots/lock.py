"""One operation per domain at a time, by a claim in the domain's metadata on the hypervisor.

Metadata cannot be compared and set in one call, so each contender first puts
down a claim in a namespace of its own and then reads all claims. Of two that
come at once at least one sees the other; who sees another takes its own claim
back. So no two ever hold a domain, whichever client or machine they come from.

    <virtsnap:claim xmlns:virtsnap="urn:virtsnap:lock:3f9a1c2e" format="1" op="save" host="…"
                    boot="…" pid_space="…" pid="…" started="…"/>

A claim is in the persistent definition, which outlives a restart of the
guest; a transient domain has it in the live one until it is made persistent,
which copies it. A claim whose process is provably gone is broken.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lxml import etree

from virtsnap.domain_xml.live import parse_xml
from virtsnap.errors import BusyError, VirtsnapError
from virtsnap.host import Domain
from virtsnap.snapshots.catalog import to_text
from virtsnap.snapshots.places import new_token

FORMAT = 1
LOCK_NS = "urn:virtsnap:lock:"
_TRIES = 5
_PREFIX = "virtsnap"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process: on which machine, since which boot, in which pid namespace, and its start (clock ticks)."""

    host: str
    boot: str
    pid_space: str
    pid: int
    started: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim as read from metadata."""

    token: str
    op: str
    owner: Owner


def this_process() -> Owner:
    """Name the calling process."""
    return Owner(
        host=socket.gethostname(), boot=_read("/proc/sys/kernel/random/boot_id"), pid_space=_pid_space(),
        pid=os.getpid(), started=_started(os.getpid()) or "",
    )


def is_gone(owner: Owner, here: Owner) -> bool:
    """Say whether an owner is provably dead, seen from `here`. What cannot be known counts as alive."""
    if owner.host != here.host:
        return False
    if owner.boot != here.boot:
        return True
    if owner.pid_space != here.pid_space:
        return False
    return _started(owner.pid) != owner.started


def claim_element(claim: Claim) -> etree._Element:
    """Write a claim."""
    namespace = LOCK_NS + claim.token
    owner = claim.owner
    return etree.Element(f"{{{namespace}}}claim", {
        "format": str(FORMAT), "op": claim.op, "host": owner.host, "boot": owner.boot,
        "pid_space": owner.pid_space, "pid": str(owner.pid), "started": owner.started,
    }, nsmap={_PREFIX: namespace})


def read_claims(definitions: Iterable[str]) -> dict[str, Claim]:
    """Read the claims in some `<domain>` documents, by their tokens."""
    claims: dict[str, Claim] = {}
    for text in definitions:
        if LOCK_NS not in text:
            continue
        for element in parse_xml(text).iterfind("metadata/*"):
            namespace = etree.QName(element).namespace if isinstance(element.tag, str) else None
            if namespace is None or not namespace.startswith(LOCK_NS):
                continue
            token, pid = namespace.removeprefix(LOCK_NS), element.get("pid", "")
            claims[token] = Claim(token=token, op=element.get("op", ""), owner=Owner(
                host=element.get("host", ""), boot=element.get("boot", ""),
                pid_space=element.get("pid_space", ""), pid=int(pid) if pid.isdigit() else 0,
                started=element.get("started", ""),
            ))
    return claims


def definitions_of(domain: Domain) -> tuple[str, ...]:
    """Give the definitions there are, the persistent one first. On failure: VirtsnapError."""
    # Both are asked first: a transient domain that is made persistent and stopped meanwhile still has one.
    live, persistent = domain.is_active(), domain.is_persistent()
    found = (domain.persistent_xml(),) if persistent else ()
    return (*found, domain.live_xml()) if live else found


def is_held(domain: Domain) -> bool:
    """Say whether a live process holds the domain; on failure: VirtsnapError."""
    here = this_process()
    return any(not is_gone(claim.owner, here) for claim in read_claims(definitions_of(domain)).values())


class Lock:
    """Holds a domain while a `with` block runs.

    `force` breaks a claim from another machine or PID namespace too, whose owner cannot be seen from here.
    On failure: BusyError, which names the owner; nothing of ours is left in the domain.
    """

    def __init__(self, domain: Domain, op: str, *, force: bool = False) -> None:
        self._domain = domain
        self._force = force
        # As last read: the persistent one first, where there is one
        self.definitions: tuple[str, ...] = ()
        self.claim = Claim(token=new_token(), op=op, owner=this_process())

    def __enter__(self) -> Lock:
        try:
            self._take()
        except BaseException:
            # A call that failed after the claim was put down: it must not stay while this process lives on.
            self._let_go()
            raise
        return self

    def _take(self) -> None:
        holder = self._holder()
        for attempt in range(1, _TRIES + 1):
            if holder is None:
                self._put()
                holder = self._holder()
                if holder is None:
                    return
                self.release()
            # Two that met and both stepped back would meet again without chance.
            time.sleep(random.uniform(0.01, 0.05) * attempt)  # noqa: S311 - not a secret
            holder = self._holder()
        if holder is None:
            raise BusyError(f"{self._domain.name} is wanted by too many at once", hint="try again")
        owner = holder.owner
        raise BusyError(
            f"{self._domain.name} is held by `{holder.op}` of process {owner.pid} on {owner.host}",
            hint=f"try again when it is done; if it died, `virtsnap recover {self._domain.name}`"
            if owner.pid_space == this_process().pid_space
            else f"try again when it is done; if you know it died, `virtsnap recover --force {self._domain.name}`",
        )

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        # What was done is done: a claim that stays is broken once this process has ended.
        try:
            self.release()
        except VirtsnapError:
            with contextlib.suppress(VirtsnapError):
                self.release()

    def release(self) -> None:
        """Take the claim out of whichever definitions there are now."""
        self._drop(self.claim.token)

    def _holder(self) -> Claim | None:
        """Give a live claim that is not ours; break those of dead owners on the way."""
        here = this_process()
        self.definitions = definitions_of(self._domain)
        others = read_claims(self.definitions)
        others.pop(self.claim.token, None)
        for token, claim in others.items():
            if not is_gone(claim.owner, here) and not (self._force and claim.owner.pid_space != here.pid_space):
                return claim
            self._drop(token)
        return None

    def _put(self) -> None:
        persistent = self._domain.is_persistent()
        # Not into the live definition of a persistent domain: a snapshot would copy it.
        self._domain.set_metadata(
            to_text(_local(claim_element(self.claim))), prefix=_PREFIX, uri=LOCK_NS + self.claim.token,
            live=not persistent, persistent=persistent,
        )

    def _drop(self, token: str) -> None:
        self._domain.drop_metadata(prefix=_PREFIX, uri=LOCK_NS + token)


def _local(element: etree._Element) -> etree._Element:
    """Give the element without its namespace: libvirt adds prefix and namespace itself."""
    bare = etree.Element(etree.QName(element).localname)
    for key, value in element.attrib.items():
        bare.set(key, value)
    return bare


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _pid_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Give a process's start time; None where there is no such process. A zombie has ended."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    # Field 3 of proc(5)'s list is the first here: state, and field 22 is the start time.
    return None if len(fields) < 20 or fields[0] in "ZX" else fields[19]
