"""`create` takes a command line or a template of one: the emulator is libvirt's own, copies run side by side."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from virtsnap.cli.main import main
from virtsnap.host.stand_in_files import make_image
from virtsnap.host.versions import known_emulator

UUID = "6b1d4f0e-0000-4000-8000-00000000c0de"


@pytest.fixture
def connection(host_uri: str) -> Iterator[libvirt.virConnect]:
    with libvirt.open(host_uri) as connection:
        before = {domain.name() for domain in connection.listAllDomains()}
        yield connection
        for domain in connection.listAllDomains():
            if domain.name() not in before:
                if domain.isActive():
                    domain.destroy()
                domain.undefine()


def test_copies_of_a_template_run_beside_each_other(
    host_uri: str, connection: libvirt.virConnect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one.qcow2", "two.qcow2"):
        make_image(tmp_path / name, format_="qcow2", size_bytes=1 << 20)
    # the SMBIOS names the UUID again, the console the serial port's number
    argv = shlex.split(f"""
        qemu -S -m 64 -nodefaults -uuid {UUID} -smbios type=1,uuid={UUID} -vnc :78
        -drive file={tmp_path}/one.qcow2,format=qcow2,if=virtio -serial tcp:127.0.0.1:24878,server,nowait
        -netdev user,id=n,hostfwd=tcp:127.0.0.1:24879-:22 -device virtio-net-pci,netdev=n
    """)
    template = tmp_path / "t.xml"
    options = ["--name", "copy-1", "--template", "-o", str(template)]
    assert main(["-c", host_uri, "convert", *options, "--", *argv]) == 0
    told = capsys.readouterr().err
    assert f"placeholder: disk1 for {tmp_path}/one.qcow2" in told
    assert main(["-c", host_uri, "create", "--name", "copy-1", "--", *argv]) == 0
    values = ("name=copy-2", f"disk1={tmp_path}/two.qcow2", "port1=5979", "port2=24880", "port3=24881")
    words = [word for value in values for word in ("--set", value)]
    assert main(["-c", host_uri, "create", "--template", str(template), *words]) == 0
    copies = [connection.lookupByName(name) for name in ("copy-1", "copy-2")]
    assert all(copy.isActive() for copy in copies)
    assert copies[0].UUIDString() == UUID != copies[1].UUIDString()
    emulator = known_emulator(host_uri, "x86_64")
    assert emulator is not None
    assert all(f"<emulator>{emulator}</emulator>" in copy.XMLDesc() for copy in copies)
