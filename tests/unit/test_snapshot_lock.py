"""Who holds a domain, and whether that owner is still there."""

from __future__ import annotations

import dataclasses
import os

from tests.unit.snapshot_samples import domain_xml
from virtsnap.snapshots.definition import with_our_metadata
from virtsnap.snapshots.lock import Claim, claim_element, is_gone, read_claims, this_process


def test_claims_come_back_as_they_were() -> None:
    first = Claim(token="0000000a", op="save", owner=this_process())
    second = dataclasses.replace(first, token="0000000b", op="load")
    xml = with_our_metadata(domain_xml(), [claim_element(first), claim_element(second)])
    assert read_claims([domain_xml(), xml]) == {first.token: first, second.token: second}


def test_only_an_owner_that_is_provably_gone_is_gone() -> None:
    here = this_process()
    assert not is_gone(here, here)
    assert is_gone(dataclasses.replace(here, started="1"), here)
    assert is_gone(dataclasses.replace(here, boot="another"), here)
    assert not is_gone(dataclasses.replace(here, started="1", host="elsewhere"), here)
    assert not is_gone(dataclasses.replace(here, started="1", pid_space="another"), here)


def test_a_process_that_ended_is_gone() -> None:
    here = this_process()
    child = os.fork()
    if child == 0:
        os._exit(0)
    # still a zombie: it has ended all the same
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert is_gone(dataclasses.replace(here, pid=child), here)
    os.waitpid(child, 0)
    assert is_gone(dataclasses.replace(here, pid=child), here)
