"""RAM in a file: which engine a save takes and says, what is refused, that no file of a snapshot ever changes."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import shlex
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

import virtsnap
import virtsnap.host
from tests.demo import qemu_command_line
from tests.faults.forked import run_verb
from tests.guest.build import GuestFiles
from tests.guest.console import GuestConsole
from tests.host.accelerator import DomainType
from tests.host.consistency import disagreements
from tests.host.guests import GuestFarm, RunningGuest, domain_xml
from tests.host.private_libvirtd import DEFAULT_USER, PrivateLibvirtd
from tests.host.test_refusals import command, still_runs
from tests.host.test_save_and_load import digest, put, tokens
from virtsnap.cli.main import main
from virtsnap.domain_xml.ram_file import DEFAULT_FOLDER, with_ram_in_file
from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host.guest_ram import BegunCopy, qemu_user
from virtsnap.host.guest_ram import begun_copy as begun_copy_of_the_product
from virtsnap.host.monitor import Monitor
from virtsnap.snapshots import steps
from virtsnap.snapshots.acts import ram
from virtsnap.snapshots.api import SnapshotDomain
from virtsnap.snapshots.origin import ORIGIN_NS

Vm = tuple[RunningGuest, SnapshotDomain]
UUID = str(uuid.uuid4())


@pytest.fixture
def vm(farm: GuestFarm) -> Iterator[Vm]:
    """A running guest whose RAM is in a file, with a screen: its video memory is RAM too, and in no file."""
    guest = farm.running_guest(ram_folder=DEFAULT_FOLDER, extra_devices="<video><model type='vga'/></video>")
    guest.console.wait_disk()
    with virtsnap.connect(farm.uri) as host:
        yield guest, host.domain(guest.name)


@pytest.fixture
def loaded(vm: Vm) -> Vm:
    """That guest after a load of its snapshot `first`: without reflinks its RAM is in private pages."""
    guest, domain = vm
    put(guest, "first")
    domain.save_snapshot("first")
    domain.load_snapshot("first")
    return vm


@pytest.fixture(scope="module")
def reflinks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on XFS with reflinks, in a file on a loop device."""
    folder = tmp_path_factory.mktemp("reflinks")
    image, place = folder / "xfs", folder / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 30)
    make = ["mkfs.xfs", "-q", "-m", "reflink=1", str(image)]
    for words in (make, ["mount", "-o", "loop", str(image), str(place)]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"`{' '.join(words)}` answers: {done.stderr.strip()}")
    place.chmod(0o777)
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    yield place
    subprocess.run(["umount", str(place)], check=True)
    image.unlink()


@pytest.fixture
def farm_with_reflinks(
    reflinks: Path, guest_files: GuestFiles, accelerator: DomainType
) -> Iterator[GuestFarm]:
    """A host that was started when the file system was there: it sees no mount that comes later."""
    with PrivateLibvirtd() as host, GuestFarm(host, guest_files, accelerator) as farm:
        yield farm


def engines_of(domain: SnapshotDomain) -> dict[str, str]:
    return {each.name: each.facts.engine for each in domain.snapshots() if each.facts is not None}


def ram_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("virtsnap-*/*.ram"))


def capabilities_of(guest: RunningGuest) -> Mapping[str, bool]:
    with virtsnap.host.connect(guest.uri) as host:
        return host.domain(guest.name).monitor.capabilities()


def leaves_ram_out(guest: RunningGuest) -> bool:
    return capabilities_of(guest)["x-ignore-shared"]


def test_every_save_is_instant_and_so_is_every_load_in_any_order_with_libvirts_own(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "first")
    domain.save_snapshot("first")
    assert not leaves_ram_out(guest)
    (ram,) = ram_files(guest.folder)
    assert (ram.stat().st_size, ram.stat().st_mode & 0o777) == (256 << 20, 0o600)
    before = digest(ram)
    put(guest, "wrong")
    domain.load_snapshot("first")
    assert tokens(guest) == ("first", "first")
    put(guest, "second")  # from here on its RAM is in private pages
    domain.save_snapshot("second")
    domain.load_snapshot("second")
    assert tokens(guest) == ("second", "second")
    put(guest, "third")
    domain.save_snapshot("third", engine="libvirt")
    domain.load_snapshot("third")
    put(guest, "fourth")  # from here on it is in a shared file again
    domain.save_snapshot("fourth")
    assert engines_of(domain) == {"first": "instant", "second": "instant", "third": "libvirt", "fourth": "instant"}
    digests = {path: digest(path) for path in ram_files(guest.folder)}
    assert len(digests) == 2  # the second shares the first's: its image holds what was changed since
    for name in ("third", "fourth", "first", "second"):
        domain.load_snapshot(name, keep_newer=True)
        assert tokens(guest) == (name, name)
    domain.load_snapshot("fourth", engine="restore", keep_newer=True)
    assert tokens(guest) == ("fourth", "fourth")
    with pytest.raises(UnsupportedError, match="not saved by `instant`"):
        domain.load_snapshot("third", engine="instant")
    assert {path: digest(path) for path in ram_files(guest.folder)} == digests
    assert digests[ram] == before


def screen_of(guest: RunningGuest) -> bytes:
    """Take a picture of a guest's screen, which is in its video memory."""
    stream = guest.domain.connect().newStream()
    guest.domain.screenshot(stream, 0, 0)
    taken = bytearray()
    stream.recvAll(lambda _stream, data, into: into.extend(data), taken)
    stream.finish()
    return bytes(taken)


def cookie_in(image: Path) -> str:
    """Give libvirt's cookie in a memory image, however it is written."""
    found = image.read_bytes()[: 1 << 20]
    end = b"</cookie>"
    return str(etree.canonicalize(found[found.index(b"<cookie>") : found.index(end)].decode() + end.decode(),
                                  strip_text=True))


def test_a_save_after_a_load_writes_what_was_changed_and_all_that_is_in_no_file(vm: Vm) -> None:
    guest, domain = vm
    guest.console.check("dd if=/dev/urandom of=/ram/large bs=1M count=32 2>/dev/null; echo old > /ram/kept")
    before = guest.console.check("sha256sum /ram/large")
    shown = screen_of(guest)
    assert len(set(shown)) > 2, "nothing is on the screen"
    domain.save_snapshot("first")
    domain.load_snapshot("first")
    guest.console.check("echo new > /ram/kept; echo more > /ram/more")
    phases = domain.save_snapshot("second").phases_s
    assert "changes" in phases
    assert not {"precopy", "copy", "split"} & phases.keys()
    (ram,) = ram_files(guest.folder)
    small = [each.facts.memory for each in domain.snapshots() if each.facts and each.name == "second"]
    assert small[0] is not None
    assert small[0].size_bytes < ram.stat().st_blocks * 512 / 3
    images = sorted(guest.folder.glob("virtsnap-*/*.mem"))
    assert len({cookie_in(image) for image in images}) == 1
    assert not capabilities_of(guest)["return-path"]
    for name, there in (("first", ["old"]), ("second", ["new", "more"]), ("second", ["new", "more"])):
        guest.console.check("echo wrong > /ram/kept; rm -f /ram/large /ram/more")
        domain.load_snapshot(name, keep_newer=True, final="paused")
        assert screen_of(guest) == shown
        guest.domain.resume()
        assert guest.console.check("cat /ram/kept /ram/more 2>/dev/null || true").split() == there
        assert guest.console.check("sha256sum /ram/large") == before
    domain.remove_snapshot("first")
    assert ram_files(guest.folder) == [ram]
    domain.load_snapshot("second")
    assert guest.console.check("cat /ram/more; sha256sum /ram/large") == f"more\n{before}"


def test_libvirts_own_revert_brings_back_a_snapshot_of_changes(loaded: Vm, farm: GuestFarm) -> None:
    guest, domain = loaded
    put(guest, "second")
    domain.save_snapshot("second")
    put(guest, "wrong")
    snapshot = guest.domain.snapshotLookupByName("second")
    if guest.domain.connect().getLibVersion() < 9009000:  # "not supported yet", of any external snapshot
        with pytest.raises(libvirt.libvirtError, match="not supported"):
            guest.domain.revertToSnapshot(snapshot)
        domain.load_snapshot("second")
    else:
        farm.leave_unchecked(guest.name, because="libvirt leaves the overlay on which the guest ran before")
        guest.domain.revertToSnapshot(snapshot)
    assert tokens(guest) == ("second", "second")


def test_too_many_changes_become_a_ram_file_of_the_snapshots_own(loaded: Vm) -> None:
    guest, domain = loaded
    guest.console.check("dd if=/dev/urandom of=/ram/large bs=1M count=80 2>/dev/null")
    (ram,) = ram_files(guest.folder)
    before = digest(ram)
    put(guest, "second")
    large = guest.console.check("sha256sum /ram/large")
    assert "split" in domain.save_snapshot("second").phases_s
    assert len(ram_files(guest.folder)) == 2
    assert digest(ram) == before
    guest.console.check("rm /ram/large")
    domain.remove_snapshot("first")
    domain.load_snapshot("second")
    assert tokens(guest) == ("second", "second")
    assert guest.console.check("sha256sum /ram/large") == large
    assert len(ram_files(guest.folder)) == 1


def test_where_qemu_gives_no_single_pages_all_of_the_ram_is_saved(
    loaded: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, domain = loaded
    put(guest, "second")
    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "device_state", lambda _: (_ for _ in ()).throw(HypervisorError("not allowed")))
        outcome = domain.save_snapshot("second")
    assert "not allowed: all of it was written" in " ".join(outcome.warnings)
    assert len(ram_files(guest.folder)) == 2
    domain.load_snapshot("second")
    assert tokens(guest) == ("second", "second")


def test_a_guest_that_somebody_else_loaded_is_saved_whole(loaded: Vm) -> None:
    guest, domain = loaded
    guest.domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, None, ORIGIN_NS,
                             libvirt.VIR_DOMAIN_AFFECT_LIVE)
    put(guest, "second")
    assert "split" in domain.save_snapshot("second").phases_s
    assert len(ram_files(guest.folder)) == 2
    domain.load_snapshot("second")
    assert tokens(guest) == ("second", "second")


def test_removing_the_snapshot_under_a_running_guest_leaves_it_running(vm: Vm) -> None:
    guest, domain = vm
    put(guest, "one")
    domain.save_snapshot("s")
    domain.load_snapshot("s")
    domain.remove_snapshot("s")
    put(guest, "two")
    domain.save_snapshot("t")
    put(guest, "three")
    domain.load_snapshot("t")
    assert tokens(guest) == ("two", "two")
    assert len(ram_files(guest.folder)) == 1


def test_a_damaged_ram_file_leaves_the_guest_running(vm: Vm) -> None:
    guest, domain = vm
    domain.save_snapshot("s", with_digests=True)
    number = guest.domain.ID()
    (ram,) = ram_files(guest.folder)
    kept, times = ram.with_suffix(".kept"), (ram.stat().st_atime_ns, ram.stat().st_mtime_ns)
    ram.rename(kept)
    with pytest.raises(HypervisorError, match=r"RAM file .* is missing"):
        domain.load_snapshot("s")
    kept.rename(ram)
    ram.touch()
    with pytest.raises(HypervisorError, match="written to after the save"):
        domain.load_snapshot("s")
    with ram.open("rb+") as file:
        file.truncate(1 << 20)
    with pytest.raises(HypervisorError, match="has 1048576 bytes"):
        domain.load_snapshot("s")
    with ram.open("rb+") as file:
        file.truncate(256 << 20)
    os.utime(ram, ns=times)
    with pytest.raises(HypervisorError, match="does not hold what it held"):
        domain.load_snapshot("s", verify=True)
    assert any(each.problems for each in domain.check(deep=True).snapshots)
    assert still_runs(guest, number)
    domain.remove_snapshot("s")


def test_what_the_guest_writes_while_its_ram_is_copied_is_in_the_snapshot(
    vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, domain = vm
    put(guest, "early")
    real = begun_copy_of_the_product

    @contextlib.contextmanager
    def begun_copy(*args: Any, **named: Any) -> Iterator[BegunCopy]:
        with real(*args, **named) as copy:
            put(guest, "meanwhile")
            yield copy

    monkeypatch.setattr(ram, "begun_copy", begun_copy)
    domain.save_snapshot("s")
    put(guest, "late")
    domain.load_snapshot("s")
    assert tokens(guest) == ("meanwhile", "meanwhile")


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_guest_that_somebody_lets_run_while_it_is_saved_gets_no_snapshot(
    loaded: Vm, farm: GuestFarm, is_loaded: bool
) -> None:
    guest, domain = loaded
    if not is_loaded:
        guest = farm.running_guest(ram_folder=DEFAULT_FOLDER)
        domain = virtsnap.connect(farm.uri).domain(guest.name)
    there = {each.name for each in domain.snapshots()}
    put(guest, "now")

    def resume(step: steps.Step) -> None:
        if isinstance(step, steps.TakeSnapshot if is_loaded else steps.CopyRam):
            guest.domain.resume()

    number = guest.domain.ID()
    with pytest.raises(HypervisorError, match="was paused to be saved, and is running now"):
        domain.save_snapshot("s", watch=resume)
    assert still_runs(guest, number)
    assert tokens(guest) == ("now", "now")
    assert {each.name for each in domain.snapshots()} == there
    assert farm.disagreements() == []
    domain.save_snapshot("s")
    put(guest, "wrong")
    domain.load_snapshot("s")
    assert tokens(guest) == ("now", "now")


def test_an_ordinary_domain_is_told_how_to_become_one(farm: GuestFarm) -> None:
    guest = farm.running_guest()
    code, _, said = command(farm.uri, "save", "--engine", "instant", guest.name, "s")
    assert (code, "create --ram-file" in said) == (6, True), said


def test_check_says_whether_saves_are_instant_what_excludes_it_and_what_it_needs(
    default_user_farm: GuestFarm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    farm = default_user_farm

    def said_of(name: str, *words: str) -> str:
        assert main(["-c", farm.uri, *words, "check", name]) == 0
        return capsys.readouterr().out

    name = farm.new_name()
    plain = domain_xml(
        name=name, domain_type=farm.domain_type, files=farm.files, serial=None, memory_mib=64, cpus=1,
        disks=[farm.new_disk(farm.new_folder(name), "disk")],
    )
    filesystem = (
        "<filesystem type='mount'><driver type='virtiofs'/><source dir='/'/><target dir='x'/></filesystem>"
    )
    memory = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    shared = plain.replace("</devices>", filesystem + "</devices>").replace("<features>", memory + "<features>")
    farm.adopt(name)
    for xml, reasons in (
        (plain, ("no, its RAM is not in a file (`virtsnap create --ram-file`",)),
        (shared, ("and cannot be: it has a <memoryBacking> of its own", "virtiofs shares its memory")),
    ):
        farm.connection.defineXML(xml.replace("<name>", f"<uuid>{UUID}</uuid><name>"))
        said = said_of(name)
        assert all(reason in said for reason in reasons), said
        assert "instant needs" not in said
    farm.connection.defineXML(
        with_ram_in_file(plain.replace("<name>", f"<uuid>{UUID}</uuid><name>"), folder=DEFAULT_FOLDER)
    ).create()
    user = f"{pwd.getpwnam(DEFAULT_USER).pw_uid}:{grp.getgrnam(DEFAULT_USER).gr_gid}"
    said = said_of(name)
    assert "instant saves: yes" in said
    assert f"instant needs: whoever saves is root or QEMU's user ({user})" in said
    monkeypatch.setattr(
        virtsnap.host.Host, "capabilities",
        lambda _: "<capabilities><host><secmodel><model>apparmor</model></secmodel></host></capabilities>",
    )
    assert "instant needs: under AppArmor in /etc/apparmor.d/local/abstractions/libvirt-qemu" in said_of(name)
    answer = json.loads(said_of(name, "--json"))
    assert (answer["instant"]["why_not"], len(answer["instant"]["needs"])) == (None, 2)
    assert said_of(name, "--quiet") == ""


def created(farm: GuestFarm) -> tuple[str, Path, GuestConsole]:
    """Have `create --ram-file` make a guest; give its name, its folder and its console."""
    name = farm.new_name()
    folder = farm.new_folder(name)
    farm.adopt(name)
    argv = qemu_command_line(folder, farm.new_disk(folder, "disk"), farm.files, farm.domain_type)
    (folder / "vm.args").write_text(shlex.join(argv))
    code, _, said = command(farm.uri, "create", "--ram-file", "--name", name, str(folder / "vm.args"))
    assert code == 0, said
    console = farm.console(name, folder / "serial0")
    console.wait_ready(timeout_s=120)
    console.wait_disk()
    return name, folder, console


def test_create_with_a_ram_file_end_to_end(farm: GuestFarm) -> None:
    name, _, console = created(farm)
    console.check("echo one > /ram/token")
    assert command(farm.uri, "save", name, "s")[0] == 0
    console.check("echo two > /ram/token")
    code, out, said = command(farm.uri, "--json", "load", name, "s")
    assert code == 0, said
    assert {"stop", "restore", "resume"} <= json.loads(out)["phases_s"].keys()
    assert console.check("cat /ram/token") == "one"
    listed = json.loads(command(farm.uri, "--json", "list", name)[1])["snapshots"]
    assert [(each["name"], each["engine"]) for each in listed] == [("s", "instant")]


def test_the_default_user_and_ownership_of_qemu_conf(default_user_farm: GuestFarm) -> None:
    farm = default_user_farm
    name, folder, console = created(farm)
    console.wait_disk(timeout_s=60)
    user = pwd.getpwnam(DEFAULT_USER).pw_uid, grp.getgrnam(DEFAULT_USER).gr_gid
    assert qemu_user(farm.connection.lookupByName(name).UUIDString()) == user

    def put_token(token: str) -> None:
        console.check(f"echo {token} > /ram/token; echo {token} > /mnt/token; sync")

    def said_by_verb(*words: str) -> str:
        code, out, said = command(farm.uri, *words)
        assert code == 0, said
        return out

    before: dict[Path, str] = {}
    for token in ("one", "two"):
        put_token(token)
        said_by_verb("save", name, token)
        before |= {ram: digest(ram) for ram in set(ram_files(folder)) - before.keys()}
        for _ in range(2):
            console.check("rm -rf /mnt/* /ram/*; sync")
            said_by_verb("load", name, token)
            told = console.check("echo 3 > /proc/sys/vm/drop_caches; cat /ram/token /mnt/token")
            assert told.split() == [token, token]
    listed = json.loads(said_by_verb("--json", "list", name))["snapshots"]
    assert [(each["name"], each["engine"]) for each in listed] == [("one", "instant"), ("two", "instant")]
    # QEMU's user opens the copies of the RAM; nobody else reads a file, or lists the folder.
    assert {path: digest(path) for path in before} == before
    assert {(ram.stat().st_uid, ram.stat().st_gid) for ram in before} == {user}
    assert {oct(path.stat().st_mode & 0o777) for path in folder.glob("virtsnap-*/*")} == {"0o600"}
    (own,) = folder.glob("virtsnap-*")
    assert (own.stat().st_uid, oct(own.stat().st_mode & 0o777)) == (0, "0o711")
    said_by_verb("load", name, "one")
    assert console.check("cat /ram/token") == "one"
    assert ram_files(folder) == [next(iter(before))]


def test_with_reflinks_every_save_and_load_is_instant(farm_with_reflinks: GuestFarm, reflinks: Path) -> None:
    guest = farm_with_reflinks.running_guest(ram_folder=str(reflinks))
    guest.console.wait_disk()
    with virtsnap.connect(guest.uri) as host:
        domain = host.domain(guest.name)
        digests: dict[Path, str] = {}
        for name in ("a", "b", "c"):
            put(guest, name)
            domain.save_snapshot(name, directory=str(reflinks))
            (new,) = set(ram_files(reflinks)) - digests.keys()
            digests[new] = digest(new)
            put(guest, "wrong")
            domain.load_snapshot(name)
            assert tokens(guest) == (name, name)
            (own,) = set(ram_files(reflinks)) - digests.keys()  # the guest's, which no snapshot has
            digests[own] = ""
        assert engines_of(domain) == dict.fromkeys("abc", "instant")
        domain.load_snapshot("a", keep_newer=True)
        assert tokens(guest) == ("a", "a")
        assert all(digest(path) == known for path, known in digests.items() if known)
        assert len(ram_files(reflinks)) == 4  # three snapshots', and the guest's: none of a line that was left
        with virtsnap.host.connect(guest.uri) as plain:
            assert disagreements(plain, guest.name, beside=[reflinks]) == []
        guest.domain.destroy()
        code, said = run_verb(("-c", guest.uri, "load", guest.name, "b"), kill=("before", 4))  # the clone
        assert code == -signal.SIGKILL, said
        code, said = run_verb(("-c", guest.uri, "recover", guest.name))
        assert (code, "was undone" in said) == (0, True), said
        assert not guest.domain.isActive()
        guest.domain.create()
        guest.console.wait_disk(timeout_s=60)
        assert guest.console.check("cat /mnt/token") == "a"
        host.collect_garbage(directories=[str(reflinks)])
        assert len(ram_files(reflinks)) == 3
        domain.load_snapshot("b")
        assert tokens(guest) == ("b", "b")
        for name in ("b", "a"):
            domain.remove_snapshot(name)
        guest.domain.destroy()
        host.collect_garbage(directories=[str(reflinks)])
        assert ram_files(reflinks) == []
