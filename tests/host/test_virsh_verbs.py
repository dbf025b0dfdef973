"""virsh's verbs: the texts of the real virsh, libvirt's tree, and the command lines that runners send."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import libvirt
import pytest

from tests.host.guests import GuestFarm, RunningGuest
from tests.host.test_save_and_load import digest, names_in_libvirt, own_files, put, tokens
from tests.host.test_virsh_console import hear
from tests.host.virsh_calls import FRONT, VIRSH, VIRTSNAP, ConsoleSession, Said, install_as_virsh, run


@pytest.fixture
def guest(farm: GuestFarm) -> RunningGuest:
    guest = farm.running_guest()
    guest.console.wait_disk()
    return guest


# The words that follow the domain's name are the same for both programs; what they print must be too.
READING = [
    "snapshot-list VM", "snapshot-list VM --tree", "snapshot-list VM --parent", "snapshot-list VM --name",
    "snapshot-list VM --roots", "snapshot-list VM --leaves", "snapshot-list VM --no-leaves --parent",
    "snapshot-list VM --topological --name", "snapshot-list VM --external --name", "snapshot-list VM --internal",
    "snapshot-list VM --inactive", "snapshot-list VM --active --name", "snapshot-list VM --disk-only",
    "snapshot-list VM --metadata --name", "snapshot-list VM --no-metadata", "snapshot-list VM --from one",
    "snapshot-list VM one --descendants --name", "snapshot-list VM --from one --tree",
    "snapshot-list --descendants --from=one --tree --domain VM", "snapshot-list VM --current",
    "snapshot-list VM nope",
    "snapshot-list nope", "snapshot-list", "snapshot-list VM --bogus",
    "snapshot-list VM --tree --name",
    "snapshot-list VM --tree --leaves", "snapshot-list VM --parent --roots",
    "snapshot-list VM --descendants", "snapshot-list VM --tree=1", "snapshot-list VM --from",
    "snapshot-list VM a b",
    "snapshot-list VM --from=",
    "snapshot-list VM -- --tree", "snapshot-list ID --name", "snapshot-list UUID --name",
    "snapshot-info VM one", "snapshot-info --current --domain VM", "snapshot-info VM two", "snapshot-info VM",
    "snapshot-info VM one --current", "snapshot-info VM nope", "snapshot-info --snapshotname=two VM",
    "snapshot-parent VM two", "snapshot-parent VM one", "snapshot-parent VM --current", "snapshot-parent VM nope",
    "snapshot-current VM", "snapshot-current VM --name", "snapshot-current VM --security-info", "snapshot-current",
    "snapshot-current VM nope", "snapshot-current VM --name one",
    "snapshot-dumpxml VM two", "snapshot-dumpxml VM one --security-info", "snapshot-dumpxml VM",
    "snapshot-dumpxml VM nope",
    "snapshot-dumpxml VM two --xpath //name", "snapshot-dumpxml VM two --xpath=//target --wrap",
    "snapshot-dumpxml VM two --xpath //target/@dev", "snapshot-dumpxml VM two --xpath //none",
    "snapshot-delete VM nope", "snapshot-delete VM", "snapshot-delete VM one --current",
    "snapshot-delete VM one --children --children-only", "snapshot-delete VM a b",
    "snapshot-revert VM nope", "snapshot-revert VM", "snapshot-revert VM one --running --paused",
    "snapshot-create-as", "snapshot-create-as VM one", "snapshot-create-as VM --name=",
    "snapshot-create-as VM --memspec",
    "snapshot-create-as VM n --print-xml", "snapshot-create-as VM --print-xml n<&'\"> d",
    "snapshot-create-as VM n --print-xml --memspec file=/a,,b,snapshot=external d vda,snapshot=no vdb,file=/x",
    "snapshot-create-as VM n --print-xml --memspec what", "snapshot-create-as VM n --print-xml d vda,what=1",
    "domxml-from-native qemu-argv /no/such/file",
    "-q snapshot-list VM", "-q snapshot-list VM --parent", "--quiet snapshot-current VM --name",
    "-r snapshot-list VM",
    "-q snapshot-info VM nope", "-c bogus:///nowhere snapshot-list VM",
]
STRINGS = [
    "snapshot-list VM; snapshot-info VM two", "snapshot-list VM --name ;; domname VM\nsnapshot-parent VM 'two'",
    "snapshot-info VM nope; snapshot-list VM", "snapshot-list VM; snapshot-info VM nope", "snapshot-list \"VM",
    "snapshot-list VM x\\", "snapshot-list VM --na\"me\" # the names", "# nothing", "",
]


def both(guest: RunningGuest, words: Sequence[str]) -> tuple[Said, Said]:
    return run(FRONT, guest.uri, *words), run(VIRSH, guest.uri, *words)


def filled(guest: RunningGuest, line: str) -> str:
    for word, value in (("UUID", guest.domain.UUIDString()), ("ID", str(guest.domain.ID()))):
        line = re.sub(rf"\b{word}\b", value, line)
    return re.sub(r"\bVM\b", guest.name, line)


def assert_all_texts_are_virshs(guest: RunningGuest) -> None:
    differing = []
    for line in READING:
        ours, theirs = both(guest, filled(guest, line).split(" "))
        if ours != theirs:
            differing.append((line, ours, theirs))
    for line in STRINGS:
        ours, theirs = both(guest, [filled(guest, line)])
        if ours != theirs:
            differing.append((line, ours, theirs))
    assert not differing


def test_texts_and_exit_codes_are_those_of_the_real_virsh(guest: RunningGuest) -> None:
    """First with internal snapshots, which plain virsh made, then with external ones, which virtsnap made."""
    uri, name = guest.uri, guest.name
    for words in (["one", "the first"], ["two"]):
        assert run(VIRSH, uri, "snapshot-create-as", name, *words).code == 0
    refused = run(FRONT, uri, "snapshot-create-as", name, "three")
    assert refused.code == 1
    assert "internal snapshots (one, two)" in refused.err
    assert_all_texts_are_virshs(guest)
    assert both(guest, ["snapshot-revert", name, "one", "--force"])[0] == \
        run(VIRSH, uri, "snapshot-revert", name, "one")
    assert both(guest, ["snapshot-current", name, "two"])[0] == run(VIRSH, uri, "snapshot-current", name, "two")
    assert run(FRONT, uri, "snapshot-delete", name, "one", "--children-only").out == \
        "Domain snapshot one children deleted\n\n"
    assert run(FRONT, uri, "snapshot-delete", name, "one").out == "Domain snapshot one deleted\n\n"
    assert names_in_libvirt(guest) == set()

    for words in (["one", "the first"], ["two"]):
        assert run(FRONT, uri, "snapshot-create-as", name, *words) == \
            Said(code=0, out=f"Domain snapshot {words[0]} created\n", err="")
    assert run(FRONT, uri, "-q", "snapshot-create-as", name, "off", "--disk-only") == Said(code=0, out="", err="")
    assert_all_texts_are_virshs(guest)
    assert run(VIRTSNAP, uri, "-q", "snapshot-list", name) == run(VIRSH, uri, "-q", "snapshot-list", name)
    dashed = ("snapshot-list", name, "--", "--x")
    assert run(VIRTSNAP, uri, *dashed) == run(VIRSH, uri, *dashed)


def test_a_tree_in_which_nothing_is_forgotten(guest: RunningGuest) -> None:
    def virsh(*words: str) -> str:
        said = run(FRONT, guest.uri, *words)
        assert said.code == 0, said
        return said.out

    name = guest.name
    for snapshot in ("cat/a", "b", "c"):
        put(guest, snapshot.replace("/", "-"))
        virsh("snapshot-create-as", name, snapshot)
    frozen = digest(guest.disks[0])
    virsh("snapshot-revert", name, "cat/a")
    put(guest, "d")
    virsh("snapshot-create-as", "--name", "d", "--domain", name)
    assert virsh("snapshot-list", name, "--tree") == (
        "cat/a\n  |\n  +- b\n  |   |\n  |   +- c\n  |     \n  +- d\n    \n\n"
    )
    assert virsh("snapshot-list", name, "--parent", "--name") == "b\nc\ncat/a\nd\n\n"
    assert "<name>cat/a</name>" in virsh("snapshot-dumpxml", name, "b")
    assert names_in_libvirt(guest) == {"cat%2Fa", "b", "c", "d"}
    for snapshot in ("c", "d", "cat/a", "b"):
        virsh("snapshot-revert", name, snapshot)
        assert tokens(guest) == (snapshot.replace("/", "-"),) * 2
        assert virsh("-q", "snapshot-current", name, "--name") == snapshot
    virsh("snapshot-delete", name, "b")
    assert virsh("-q", "snapshot-parent", name, "c") == "cat/a"
    for snapshot in ("c", "d", "cat/a"):
        virsh("snapshot-revert", name, snapshot)
        assert tokens(guest) == (snapshot.replace("/", "-"),) * 2
    # A paused snapshot comes back paused, and --running overrules it
    guest.domain.suspend()
    virsh("snapshot-create-as", name, "paused")
    for options, state in (((), "paused"), (("--running",), "running"), (("--paused",), "paused")):
        virsh("snapshot-revert", name, "paused", *options)
        assert run(VIRSH, guest.uri, "domstate", name).out.strip() == state
    virsh("snapshot-delete", "--domain", name, "--children-only", "cat/a")
    assert names_in_libvirt(guest) == {"cat%2Fa"}
    guest.domain.resume()
    virsh("snapshot-revert", name, "--current")
    assert tokens(guest) == ("cat-a", "cat-a")
    assert digest(guest.disks[0]) == frozen
    virsh("snapshot-delete", name, "cat/a", "--children")
    assert names_in_libvirt(guest) == set()
    assert {Path(path).suffix for path in own_files(guest)} == {".qcow2"}


def test_what_is_not_supported_is_refused_by_name(guest: RunningGuest) -> None:
    def refusal(*words: str) -> str:
        said = run(FRONT, guest.uri, *words)
        assert said.code == 1, said
        return said.err

    name, number = guest.name, guest.domain.ID()
    run(FRONT, guest.uri, "snapshot-create-as", name, "s")
    assert "--reset-nvram" in refusal("snapshot-revert", name, "s", "--reset-nvram")
    assert "--diskspec" in refusal("snapshot-create-as", name, "n", "--diskspec", "vda")
    assert "--no-metadata" in refusal("snapshot-create-as", name, "n", "--no-metadata")
    assert "snapshot=internal" in refusal("snapshot-create-as", name, "n", "--memspec", "snapshot=internal")
    assert "--resume" in refusal("console", name, "--resume")
    assert "connect" in refusal("connect x; snapshot-list y")
    assert guest.domain.ID() == number
    assert names_in_libvirt(guest) == {"s"}

    # What the caller names is made where the caller says, can be reverted to, and stays the caller's.
    put(guest, "asked")
    memory, overlay = guest.folder / "my.mem", guest.folder / "my.qcow2"
    said = run(
        FRONT, guest.uri, "snapshot-create-as", name, "mine/1", "--memspec", f"file={memory},snapshot=external",
        "--diskspec", f"vda,snapshot=external,file={overlay}", "--live",
    )
    assert (said.code, said.out) == (0, "Domain snapshot mine/1 created\n"), said
    put(guest, "later")
    assert run(FRONT, guest.uri, "snapshot-revert", name, "mine/1").code == 0
    assert tokens(guest) == ("asked", "asked")
    assert run(FRONT, guest.uri, "snapshot-delete", name, "mine/1").code == 0
    assert memory.exists()
    # Disks alone: a revert leaves the domain off, as libvirt's own does, unless it is told to start it.
    put(guest, "disks")
    assert run(FRONT, guest.uri, "snapshot-create-as", name, "disks", "--disk-only", "--atomic").code == 0
    put(guest, "later")
    assert run(FRONT, guest.uri, "snapshot-revert", name, "disks").code == 0
    assert not guest.domain.isActive()
    assert run(FRONT, guest.uri, "snapshot-revert", name, "disks", "--running").code == 0
    guest.console.wait_disk()
    assert guest.console.check("cat /mnt/token") == "disks"
    put(guest, "halted")
    assert run(FRONT, guest.uri, "snapshot-create-as", name, "halted", "--halt", "--validate").code == 0
    assert not guest.domain.isActive()
    assert run(FRONT, guest.uri, "snapshot-revert", name, "halted").code == 0
    assert tokens(guest) == ("halted", "halted")


def shell(line: str, uri: str, environment: dict[str, str]) -> Said:
    """Run a line as sshd does for os-autoinst: by the login shell, unquoted."""
    return run(["sh", "-c", line], uri, environment=environment)


def svirt_job(farm: GuestFarm, folder: Path) -> RunningGuest:
    """Send what os-autoinst's svirt backend (a490955) sends for one job, in order."""
    environment = install_as_virsh(folder)
    guest = farm.running_guest(extra_devices="<serial type='pty'/>")
    uri, name = guest.uri, guest.name
    definition = folder / "domain.xml"
    definition.write_text(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    before = {path.name for path in guest.folder.iterdir()} - {"serial"}

    def virsh(line: str, *, code: int = 0) -> str:
        said = shell(line, uri, environment)
        assert said.code == code, (line, said)
        return said.out

    virsh(f"virsh destroy {name}")
    virsh(f"virsh undefine --snapshots-metadata {name}")
    virsh(f"virsh define {definition}")
    virsh(f"virsh start {name} 2> /dev/null")
    assert "id='" in virsh(f"virsh dumpxml {name}")
    guest.console.wait_disk()
    guest.console.check("stty -F /dev/ttyS1 -echo raw")
    program = [str(folder / "front" / "virsh")]
    with ConsoleSession(uri, name, "serial1", program=program) as session:
        hear(session, guest, "began")
        for token in ("first", "second"):
            put(guest, token)
            virsh(f"virsh snapshot-delete {name} cat-boot#1; virsh snapshot-create-as {name} cat-boot#1")
        assert virsh(f"virsh -q snapshot-list {name} --name") == "cat-boot#1\n"
        for _ in range(2):
            put(guest, "wrecked")
            virsh(f"virsh snapshot-revert {name} cat-boot#1")
            assert tokens(guest) == ("second", "second")
            guest.console.check("echo reverted > /dev/ttyS1")
            session.wait_for("reverted\n")
        virsh(f"! virsh dominfo {name} | grep -w 'shut off'")
        put(guest, "last")
        virsh(f"virsh destroy {name}")
        virsh(f"virsh dominfo {name} | grep -w 'shut off'")
        # Without the option virsh refuses, and nothing is touched
        assert "1 snapshot" in shell(f"virsh undefine {name}", uri, environment).err
        assert own_files(guest)
        virsh(f"virsh undefine --snapshots-metadata {name}")
        assert session.ends(timeout_s=5) == 0
    virsh(f"virsh dominfo {name}", code=1)
    left = {path.name for path in guest.folder.iterdir()} - {"serial"}
    assert left == before, "nothing of virtsnap's is left behind"
    return guest


def test_the_command_lines_of_os_autoinst(farm: GuestFarm, tmp_path: Path) -> None:
    guest = svirt_job(farm, tmp_path)
    # The disk is as the guest left it
    run(VIRSH, guest.uri, "define", str(tmp_path / "domain.xml"))
    run(VIRSH, guest.uri, "start", guest.name)
    guest.console.wait_disk()
    assert guest.console.check("cat /mnt/token") == "last"


def test_the_same_under_the_default_user(default_user_farm: GuestFarm, tmp_path: Path) -> None:
    guest = svirt_job(default_user_farm, tmp_path)
    subprocess.run(["qemu-img", "check", "-q", guest.disks[0]], check=True)


def test_everything_else_goes_to_the_real_virsh(host_uri: str, tmp_path: Path) -> None:
    environment = install_as_virsh(tmp_path)
    for line in ("list --all", "version", "-q nodeinfo", "help list", "--version", "-x", "bogus", "-c"):
        words = line.split()
        assert run(["virsh"], host_uri, *words, environment=environment) == run(VIRSH, host_uri, *words)
    # A wrapper that leads back here is passed over the second time
    wrapper = tmp_path / "wrapper"
    wrapper.mkdir()
    (wrapper / "virsh").write_text(f"#!/bin/sh\nexec {tmp_path}/virtsnap-virsh \"$@\"\n")
    (wrapper / "virsh").chmod(0o755)
    around = {"PATH": f"{wrapper}{os.pathsep}{environment['PATH']}"}
    assert run(["virsh"], host_uri, "uri", environment=around) == run(VIRSH, host_uri, "uri")
    alone = {"PATH": f"{tmp_path / 'front'}"}
    said = run([str(tmp_path / "front" / "virsh")], host_uri, "uri", environment=alone)
    assert (said.code, said.err.splitlines()[0]) == (1, "error: the real virsh is not on the PATH")
