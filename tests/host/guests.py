"""A host and the built guest files become running domains, and are cleared up after a test."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import libvirt
from lxml import etree

import virtsnap.host
from tests.guest.build import GuestFiles
from tests.guest.console import GuestConsole
from tests.host.accelerator import DomainType
from tests.host.booted import Booted, wake
from tests.host.consistency import disagreements
from tests.host.private_libvirtd import PrivateLibvirtd
from virtsnap.domain_xml.ram_file import with_ram_in_file
from virtsnap.errors import VirtsnapError

BOOT_TIMEOUT_S = 180.0
_UEFI_BOOT_TIMEOUT_S = 400.0  # OVMF unpacks itself: half a minute under TCG

_OVMF = """<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
        <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{folder}/vars.fd</nvram>"""

_numbers = itertools.count(1)
# Several test runs share a machine, and some tests look for their QEMU by its guest's name.
_RUN = secrets.token_hex(3)

# Without a handler the library prints every error to stderr, those that are expected too.
libvirt.registerErrorHandler(lambda *_: None, None)


@dataclass(frozen=True, kw_only=True)
class RunningGuest:
    """A domain whose guest has answered.

    `folder` holds its files and vanishes with the test; `disks` are its qcow2
    overlays at the start, in the order of vda, vdb…; `domain` is a libvirt.virDomain.
    One with nothing special was not booted but woken up (`tests.host.booted`).
    """

    name: str
    uri: str
    domain: Any
    console: GuestConsole
    folder: Path
    disks: tuple[Path, ...]


class GuestFarm:
    """Makes domains on one host; in the end it sees that all agrees, and removes them with all that is theirs.

    Use it as a context manager, or call `clear`. A test that damages something on purpose says so by
    `leave_unchecked`.
    """

    def __init__(self, host: PrivateLibvirtd, files: GuestFiles, domain_type: DomainType) -> None:
        self.host = host
        self.uri = host.uri
        self.domain_type: DomainType = domain_type if host.kvm_open else "qemu"
        self.connection = libvirt.open(host.uri)
        self._names: list[str] = []
        self._consoles: list[GuestConsole] = []
        self._folders: list[Path] = []
        self._unchecked: dict[str, str] = {}
        self.files_digest = files.kernel.parent.name
        # Copies of the guest's files: the default user must reach them, and may be given them. Each kind of guest
        # has its own, for all farms of a host share its folder.
        self.files = _copy_of(files, host.work / self.files_digest)

    def new_folder(self, name: str) -> Path:
        """Make a folder that QEMU's user can reach and write to, removed with the domains."""
        folder = self.host.work / name
        folder.mkdir()
        folder.chmod(0o777)
        self._folders.append(folder)
        return folder

    def new_name(self, stem: str = "guest") -> str:
        """Give a domain name that this test run has not used yet."""
        return f"{stem}-{_RUN}-{next(_numbers)}"

    def new_disk(self, folder: Path, name: str, *, size: str | None = None) -> Path:
        """Make a qcow2 in `folder`: an overlay over the guest's ext4 disk, or an empty one of `size`."""
        disk = folder / f"{name}.qcow2"
        base = () if size else ("-b", self.files.disk, "-F", "qcow2")
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *base, disk, *([size] if size else [])],
            check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return disk

    def make_domain(self, xml: str) -> Any:
        """Define and start a domain from `xml`; return the virDomain. It is removed by `clear`."""
        domain = self.connection.defineXML(xml)
        self._names.append(domain.name())
        domain.create()
        return domain

    def running_guest(
        self,
        *,
        name: str | None = None,
        memory_mib: int = 256,
        cpus: int = 1,
        console: Literal["unix", "pty"] = "unix",
        extra_disk_sizes: Sequence[str] = (),
        extra_devices: str = "",
        before_devices: str = "",
        machine: str = "pc",
        uefi: bool = False,
        ram_folder: str | None = None,
        has_disk: bool = True,
    ) -> RunningGuest:
        """Start a domain with virtio disks and a serial console, and wait until the guest answers.

        The first disk is an overlay over the guest's ext4, if it `has_disk`; `extra_disk_sizes` adds
        empty ones. `extra_devices` goes into <devices>, `before_devices` before it.
        With `uefi` it has OVMF and `vars.fd` in its folder; with `ram_folder` its RAM is in a file there, as
        `create --ram-dir` has it.
        """
        name = name or self.new_name()
        folder = self.new_folder(name)
        disks = [self.new_disk(folder, "disk0")] if has_disk else []
        disks += [self.new_disk(folder, f"disk{n}", size=size) for n, size in enumerate(extra_disk_sizes, start=1)]
        serial = folder / "serial" if console == "unix" else None
        xml = domain_xml(
            name=name, domain_type=self.domain_type, files=self.files, serial=serial, disks=disks,
            memory_mib=memory_mib, cpus=cpus, extra_devices=extra_devices, before_devices=before_devices,
            machine=machine, firmware=_OVMF.format(folder=folder) if uefi else "",
        )  # fmt: skip
        if ram_folder is not None:
            xml = with_ram_in_file(xml, folder=ram_folder)
        opened = self.console(name, serial)
        if uefi or ram_folder or extra_devices or before_devices or extra_disk_sizes or not has_disk:
            domain = self.make_domain(xml)
            opened.wait_ready(timeout_s=_UEFI_BOOT_TIMEOUT_S if uefi else BOOT_TIMEOUT_S)
            if has_disk:
                opened.wait_disk()  # it may come after the first answer
        else:
            domain = self._woken(xml, name, disks[0], opened)
        return RunningGuest(
            name=name, uri=self.uri, domain=domain, console=opened, folder=folder, disks=tuple(disks)
        )

    def _woken(self, xml: str, name: str, disk: Path, console: GuestConsole) -> Any:
        """Start a domain by waking up one that booted before; most tests need no boot of their own."""
        def boot() -> Any:
            domain = self.make_domain(xml)
            console.wait_ready()
            console.wait_disk()
            console.check("sync")
            return domain

        names = {"work": str(self.host.work), "name": name}
        version = self.connection.getLibVersion(), self.connection.getVersion()
        kept = Booted(str(version)).kept(f"{self.files_digest} {xml}", names=names, disk=disk, boot=boot)
        with contextlib.suppress(libvirt.libvirtError):
            self.connection.lookupByName(name).undefine()  # the first of its shape has just been saved
        console.close()
        self.adopt(name)
        domain = wake(self.connection, kept, xml, names=names, disk=disk)
        console.wait_ready()
        return domain

    def console(self, name: str, serial: Path | None = None) -> GuestConsole:
        """Open the serial console of the domain `name`: at `serial`, or wherever its live XML says."""
        console = GuestConsole(serial or (lambda: self._serial_place(name)))
        self._consoles.append(console)
        return console

    def disagreements(self) -> list[str]:
        """Say where libvirt's objects, the catalog and the files of the domains made here do not agree."""
        found: list[str] = []
        with virtsnap.host.connect(self.uri) as host:
            known = {domain.uuid for domain in host.domains()}
            for name in sorted({*self._names} - self._unchecked.keys()):
                if host.has_domain(name):
                    found += [f"{name}: {each}" for each in disagreements(host, name, beside=self._folders)]
        for folder in self._folders:
            left = [path for path in folder.glob("virtsnap-*") if path.name.removeprefix("virtsnap-") not in known]
            found += [f"{path} belongs to no domain" for path in left if folder.name not in self._unchecked]
        return found

    def leave_unchecked(self, name: str, *, because: str) -> None:
        """Take a domain, and the folder of that name, out of what `clear` compares."""
        self._unchecked[name] = because

    def clear(self, *, is_checked: bool = True) -> None:
        """Remove the domains made here, with their snapshots' metadata, and then their folders.

        On failure, all of it being gone: AssertionError, where something did not agree.
        """
        for console in self._consoles:
            console.close()
        try:
            found = self.disagreements() if is_checked else []
        except VirtsnapError as exc:
            found = [exc.message]
        # A connection of its own: a test may have killed the daemon that the other one led to.
        with libvirt.open(self.uri) as connection:
            for name in self._names:
                _remove_domain(connection, name)
        for folder in self._folders:
            shutil.rmtree(folder)
        for kept in (self._names, self._consoles, self._folders, self._unchecked):
            kept.clear()
        if found:
            raise AssertionError("\n".join(found))

    def adopt(self, name: str) -> None:
        """Have the domain `name`, which something else made, removed by `clear` too."""
        self._names.append(name)

    def __enter__(self) -> GuestFarm:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.clear(is_checked=kind is None)
        finally:
            self.connection.close()

    def _serial_place(self, name: str) -> str:
        live = etree.fromstring(self.connection.lookupByName(name).XMLDesc().encode())
        places = live.xpath("string((//serial|//console)/source/@path)")
        assert isinstance(places, str)
        return places


def _power_off(domain: Any) -> None:
    if not domain.isActive():
        return
    try:
        domain.destroy()
    except libvirt.libvirtError:
        # libvirt 9.0, while it reconnects to its guests after a restart: the domain
        # is off then, and destroy says "domain is not running".
        if domain.isActive():
            raise


def _remove_domain(connection: Any, name: str) -> None:
    try:
        domain = connection.lookupByName(name)
        _power_off(domain)
        domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        )
    except libvirt.libvirtError as exc:
        # The test removed it itself, or it was transient and went with its QEMU.
        if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise


def domain_xml(
    *,
    name: str,
    domain_type: DomainType,
    files: GuestFiles,
    serial: Path | None,
    disks: Sequence[Path],
    memory_mib: int,
    cpus: int,
    extra_devices: str = "",
    before_devices: str = "",
    machine: str = "pc",
    firmware: str = "",
) -> str:
    """Write the domain of a test guest; `serial` is the UNIX socket on which QEMU listens, None a pty."""
    serial_element = f"type='unix'><source mode='bind' path='{serial}'/></serial>" if serial else "type='pty'/>"
    disk_elements = "".join(
        f"""
        <disk type='file' device='disk'>
          <driver name='qemu' type='qcow2'/>
          <source file='{disk}'/>
          <target dev='vd{"abcdefghij"[n]}' bus='virtio'/>
        </disk>"""
        for n, disk in enumerate(disks)
    )
    return f"""
    <domain type='{domain_type}'>
      <name>{name}</name>
      <memory unit='MiB'>{memory_mib}</memory>
      <vcpu>{cpus}</vcpu>
      <os>
        <type arch='x86_64' machine='{machine}'>hvm</type>
        {firmware}
        <kernel>{files.kernel}</kernel>
        <initrd>{files.initramfs}</initrd>
        <cmdline>{files.kernel_arguments}</cmdline>
      </os>
      <features><acpi/></features>
      <on_crash>destroy</on_crash>
      {before_devices}
      <devices>{disk_elements}
        <serial {serial_element}
        <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
        {extra_devices}
      </devices>
    </domain>"""


def _copy_of(files: GuestFiles, folder: Path) -> GuestFiles:
    if not folder.exists():
        folder.mkdir()
        for source in (files.kernel, files.initramfs, files.disk):
            shutil.copy(source, folder)
            (folder / source.name).chmod(0o644)
    return GuestFiles(
        kernel=folder / files.kernel.name,
        initramfs=folder / files.initramfs.name,
        disk=folder / files.disk.name,
        kernel_arguments=files.kernel_arguments,
    )
