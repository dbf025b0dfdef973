"""What libvirt itself refuses after the old guest's stop leaves the disks of before, and starts them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

import virtsnap
from tests.host.engines import require_native_engine
from tests.host.guests import GuestFarm, RunningGuest
from tests.host.test_save_and_load import disk_files, own_files, put, tokens
from virtsnap.domain_xml import quick_start
from virtsnap.errors import HypervisorError
from virtsnap.snapshots.acts import loading, native
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.definition import with_revert_disks
from virtsnap.snapshots.engines import EngineName

# What a guest cannot be started without that has this in it, when libvirt is told that QEMU lacks it
NEEDED, HAS_IT = "VGA", "<video><model type='vga'/></video>"


def assert_is_as_before(
    farm: GuestFarm, guest: RunningGuest, domain: SnapshotDomain, line: list[str],
    *, engines: Sequence[EngineName | None] = (None,),
) -> None:
    """See that it is off on its line, boots from it twice, and that `s` loads."""
    assert disk_files(guest, live=True) == disk_files(guest, live=False) == line
    assert farm.disagreements() == []
    for _ in range(2):
        guest.domain.create()
        guest.console.wait_disk()
        assert guest.console.check("cat /mnt/token") == "two"
        guest.domain.destroy()
        assert domain.recover() is None
    for engine in engines:
        domain.load_snapshot("s", engine=engine)
        assert tokens(guest) == ("one", "one")


def test_a_restore_that_libvirt_refuses_leaves_the_disks_of_before_bootable(
    farm: GuestFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = farm.running_guest(extra_devices=HAS_IT)
    put(guest, "one")
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        domain.save_snapshot("s")
        put(guest, "two")
        line = disk_files(guest, live=True)
        with monkeypatch.context() as patch:
            patch.setattr(quick_start, "CAPABILITY", NEEDED)
            patch.setattr(loading, "start_as_always", lambda _: False)  # not tried a second time
            with pytest.raises(HypervisorError, match=r"(?s)vga.* is shut off now"):
                domain.load_snapshot("s")
        assert_is_as_before(farm, guest, domain, line)


def test_a_recovery_that_libvirt_refuses_leaves_one_definition(
    farm: GuestFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = farm.running_guest(extra_devices=HAS_IT)
    put(guest, "one")
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        domain.save_snapshot("s")
        put(guest, "two")
        line = disk_files(guest, live=True)
        program = (
            "import sys; from tests.faults.killed import run_until; from virtsnap.domain_xml import quick_start\n"
            f"quick_start.CAPABILITY = {NEEDED!r}; run_until('after', 4, sys.argv[1:])"
        )
        killed = subprocess.run(
            [sys.executable, "-c", program, "-c", farm.uri, "load", guest.name, "s"], check=False,
            stdin=subprocess.DEVNULL,
        )
        assert (killed.returncode, guest.domain.isActive()) == (-signal.SIGKILL, 0)
        with monkeypatch.context() as patch:
            patch.setattr(loading, "start_as_always", lambda _: False)  # not tried a second time
            recovered = domain.recover()
        assert recovered is not None
        assert (recovered.how, "vga" in str(recovered.warnings)) == ("undone", True)
        assert_is_as_before(farm, guest, domain, line)


def test_a_revert_that_libvirt_refuses_leaves_the_disks_of_before_bootable(
    farm: GuestFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_native_engine(farm.uri)
    guest = farm.running_guest(extra_devices=HAS_IT)
    put(guest, "one")
    with virtsnap.connect(farm.uri) as host:
        domain = host.domain(guest.name)
        domain.save_snapshot("s")
        domain.save_snapshot("t")
        put(guest, "two")
        line, before = disk_files(guest, live=True), own_files(guest)

        def without_vga(xml: str, targets: Sequence[str], *, path: str) -> str:
            capabilities = "<qemu:capabilities xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
            return with_revert_disks(xml, targets, path=path).replace(
                "</domain>", f"{capabilities}<qemu:del capability='{NEEDED}'/></qemu:capabilities></domain>"
            )

        with monkeypatch.context() as patch:
            patch.setattr(native, "with_revert_disks", without_vga)
            with pytest.raises(HypervisorError, match=r"(?s)vga.* is shut off now"):
                domain.load_snapshot("s", engine="native")
        assert own_files(guest) == before
        assert [each.name for each in domain.snapshots() if each.is_current] == ["t"]
        assert_is_as_before(farm, guest, domain, line, engines=("native", "restore"))
