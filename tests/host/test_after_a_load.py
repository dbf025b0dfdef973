"""After a load: the guest's clock, what has to be opened again, and which side of the stop a time limit is on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

import virtsnap
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.test_refusals import command, guest_with_much_memory, still_runs
from tests.host.test_save_and_load import names_in_libvirt, own_files, put, tokens
from virtsnap.errors import OperationTimeoutError
from virtsnap.host import Domain
from virtsnap.snapshots import run
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.steps import Step

AGENT = """<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"""
DEVICES = AGENT + """
    <console type='pty'><target type='virtio'/></console>
    <channel type='unix'><target type='virtio' name='org.example.test'/></channel>
    <graphics type='vnc' autoport='yes' listen='127.0.0.1' passwd='secret'/>"""
Vm = tuple[RunningGuest, SnapshotDomain]


@pytest.fixture
def vm(farm: GuestFarm) -> Iterator[Vm]:
    """A guest with a VNC display, a virtio console on a pty, and channels on sockets."""
    guest = farm.running_guest(extra_devices=DEVICES)
    guest.console.wait_disk()
    with virtsnap.connect(farm.uri) as host:
        yield guest, host.domain(guest.name)


def behind_s(guest: RunningGuest) -> float:
    return time.time() - float(guest.console.check("date +%s"))


def test_the_clock_is_set_where_an_agent_answers(vm: Vm, host_uri: str) -> None:
    guest, domain = vm
    guest.console.check("setsid answer-agent >/dev/null 2>&1 &")
    guest.console.check("date -s 2001-01-01")
    put(guest, "one")
    domain.save_snapshot("s")
    put(guest, "two")
    assert command(host_uri, "load", guest.name, "s")[0] == 0
    assert behind_s(guest) > 10**8  # the time of the save
    code, out, err = command(host_uri, "--json", "load", guest.name, "s", "--sync-time")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["warnings"] == []
    assert "clock" in answer["phases_s"]
    assert abs(behind_s(guest)) < 120
    assert tokens(guest) == ("one", "one")


def test_without_an_agent_the_load_is_done_and_a_warning_says_so(vm: Vm, host_uri: str) -> None:
    guest, domain = vm
    domain.save_snapshot("s")
    code, out, err = command(host_uri, "load", guest.name, "s", "--sync-time")
    assert code == 0
    assert "loaded s" in out
    assert "it shows the time of the save" in err


def test_the_answer_says_what_has_to_be_opened_again(vm: Vm, host_uri: str) -> None:
    guest, domain = vm
    domain.save_snapshot("s")
    answer = json.loads(command(host_uri, "--json", "load", guest.name, "s")[1])
    assert "secret" not in json.dumps(answer)
    reopen = {(each["device"], each.get("name") or each["type"]): each for each in answer["reopen"]}
    assert reopen["serial", "serial0"]["path"] == str(guest.folder / "serial")
    assert reopen["console", "console1"]["path"].startswith("/dev/pts/")
    assert {"channel0", "channel1"} <= {name for device, name in reopen if device == "channel"}
    assert reopen["graphics", "vnc"]["port"] >= 5900
    assert ("console", "console0") not in reopen  # the serial port's other name
    assert "reopen" not in json.loads(command(host_uri, "--json", "save", guest.name, "s")[1])


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_time_limit_says_on_which_side_of_the_stop_it_was_reached(
    vm: Vm, mocker: MockerFixture, when: str
) -> None:
    guest, domain = vm
    put(guest, "one")
    domain.save_snapshot("s")
    put(guest, "two")
    number, files = guest.domain.ID(), own_files(guest)
    stopped = False
    real = Domain.stop

    def stop(self: Domain, **options: Any) -> None:
        nonlocal stopped
        real(self, **options)
        stopped = True

    mocker.patch.object(Domain, "stop", stop)
    mocker.patch.object(run.Context, "is_late", lambda _self: stopped or when == "before")
    if when == "before":
        with pytest.raises(OperationTimeoutError, match="before the point of no return") as caught:
            domain.load_snapshot("s", timeout_s=1000)
        assert caught.value.hint is not None
        assert "goes on" in caught.value.hint
        assert still_runs(guest, number)
        assert own_files(guest) == files
        assert tokens(guest) == ("two", "two")
    else:
        outcome = domain.load_snapshot("s", timeout_s=1000)
        assert any("after the point of no return" in warning for warning in outcome.warnings)
        assert tokens(guest) == ("one", "one")


def test_the_bytes_of_a_save_can_be_read_while_it_runs(farm: GuestFarm) -> None:
    guest = guest_with_much_memory(farm)
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        steps: list[Step] = []
        saving = threading.Thread(target=domain.save_snapshot, args=("s",), kwargs={"watch": steps.append})
        saving.start()
        seen = set()
        while saving.is_alive():
            if steps:
                seen.add(domain.progress(steps[-1]))
        saving.join()
    counted = [each for each in seen if each is not None]
    assert any(0 < done < 768 * 2**20 for done, _ in counted)
    assert {total for _, total in counted} == {768 * 2**20}
    assert names_in_libvirt(guest) == {"s"}
