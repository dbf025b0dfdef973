"""A QEMU command line becomes a verdict: argv and the converted domain, stopped at reset, are compared."""

from __future__ import annotations

import re
import uuid as uuid_module
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from virtsnap.command_line.shell_words import parse_shell_text
from virtsnap.convert import convert_command_line
from virtsnap.convert.head.machines import LIBVIRT_ARCH, arch_of_emulator
from virtsnap.domain_xml.templates import Templates
from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host.hypervisor import is_local_uri
from virtsnap.host.stand_in_files import (
    image_size,
    is_readable_file,
    make_file,
    make_folder,
    make_image,
    memory_bytes,
    stand_in_folder,
)
from virtsnap.host.stopped_machine import (
    domain_to_argv,
    has_uuid,
    kvm_works,
    list_machines,
    stopped_domain,
    stopped_process,
)
from virtsnap.host.text_files import read_text
from virtsnap.verify.compare import Comparison, compare_hardware
from virtsnap.verify.hardware import Hardware, read_hardware
from virtsnap.verify.round_trip import Change, compare_round_trip
from virtsnap.verify.stand_in_rules import HANDLERS
from virtsnap.verify.stand_ins import Rewritten, StandIn, Surroundings, rewrite, without_unknown_switch

# A QEMU that lacks one property often lacks its neighbours; more than so many, and it is too old.
_MOST_UNKNOWN_SWITCHES = 20


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """The QEMU of this host for an architecture, and what it can do."""

    path: str
    machines: frozenset[str]
    kvm: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came out. `argv` is the command line that was started; `xml` the domain of that command line."""

    comparison: Comparison
    stand_ins: tuple[StandIn, ...]
    argv: tuple[str, ...]
    xml: str


class NotStartedError(HypervisorError):
    """The command line itself cannot be started here; the message is QEMU's own."""

    code = "not-started"

    def __init__(self, message: str, stand_ins: tuple[StandIn, ...]) -> None:
        super().__init__(message, hint="what was replaced on this host is listed by --json")
        self.stand_ins = stand_ins


def find_emulator(argv0: str) -> Emulator:
    """Find this host's QEMU for the architecture of a command line; raises HypervisorError where there is none."""
    libvirt_arch = arch_of_emulator(argv0)
    arch = {libvirt: qemu for qemu, libvirt in LIBVIRT_ARCH.items()}.get(libvirt_arch, libvirt_arch)
    path = f"/usr/bin/qemu-system-{arch}"
    return Emulator(path=path, machines=list_machines(path), kvm=kvm_works(path))


def verify_command_line(
    argv: Sequence[str],
    *,
    uri: str | None,
    base: Path,
    for_libvirt: tuple[int, int] | None,
    emulator: Emulator | None = None,
    templates: Templates | None = None,
) -> Verdict:
    """Compare the hardware of a command line with that of its domain.

    Needs a hypervisor on this machine: its QEMU reads the stand-ins' files. The two machines run one
    after the other, neither executes an instruction, and nothing of them is left. On failure:
    NotStartedError where QEMU refuses argv, CommandLineError where it cannot be read,
    VirtsnapError with libvirt's words where the domain cannot be started.
    """
    if uri is not None and not is_local_uri(uri):
        raise UnsupportedError(f"{uri}: verify works on this machine only", hint="run it on the hypervisor itself")
    emulator = emulator or find_emulator(argv[0])
    with stand_in_folder() as folder:
        rewritten = rewrite(argv, _surroundings(emulator, folder, base, uri), HANDLERS)
        _make_files(rewritten)
        ours, rewritten = _read_argv(rewritten, folder)
        xml = convert_command_line(
            rewritten.argv, name=f"virtsnap-verify-{uuid_module.uuid4()}", for_libvirt=for_libvirt, base=base,
            templates=templates, read_file=read_text,
        ).xml
        with stopped_domain(uri, xml) as machine:
            theirs = read_hardware(machine)
    return Verdict(
        comparison=compare_hardware(ours, theirs), stand_ins=rewritten.stand_ins, argv=rewritten.argv, xml=xml
    )


def check_round_trip(
    argv: Sequence[str],
    *,
    uri: str | None,
    base: Path,
    for_libvirt: tuple[int, int] | None,
    emulator: Emulator | None = None,
    templates: Templates | None = None,
) -> tuple[Change, ...]:
    """Compare a command line with the one that libvirt makes of its domain; nothing is started.

    The stand-ins are those of `verify_command_line`, so that libvirt finds what it looks for. On
    failure: CommandLineError where argv cannot be read, VirtsnapError with libvirt's words.
    """
    emulator = emulator or find_emulator(argv[0])
    with stand_in_folder() as folder:
        rewritten = rewrite(argv, _surroundings(emulator, folder, base, uri), HANDLERS)
        _make_files(rewritten)
        xml = convert_command_line(
            rewritten.argv, name=f"virtsnap-verify-{uuid_module.uuid4()}", for_libvirt=for_libvirt, base=base,
            templates=templates, read_file=read_text,
        ).xml
        text = domain_to_argv(uri, xml)
    return compare_round_trip(rewritten.argv, parse_shell_text(text).argv)


def _surroundings(emulator: Emulator, folder: Path, base: Path, uri: str | None) -> Surroundings:
    return Surroundings(
        folder=folder, emulator=emulator.path, machines=emulator.machines, kvm=emulator.kvm, base=base,
        image_size=image_size, is_file=is_readable_file, uuid_taken=lambda uuid: _is_taken(uri, uuid),
        memory_bytes=memory_bytes(),
    )


def _is_taken(uri: str | None, text: str) -> bool:
    try:
        return has_uuid(uri, str(uuid_module.UUID(text)))
    except ValueError:
        return False


def _read_argv(rewritten: Rewritten, folder: Path) -> tuple[Hardware, Rewritten]:
    """Start argv and read it; switches of a feature that this QEMU lacks are taken out, one after the other."""
    for _ in range(_MOST_UNKNOWN_SWITCHES):
        try:
            with stopped_process(rewritten.argv, folder=folder) as machine:
                return read_hardware(machine), rewritten
        except HypervisorError as exc:
            fewer = without_unknown_switch(rewritten.argv, exc.message)
            if fewer is None:
                raise NotStartedError(_without_path(exc.message), rewritten.stand_ins) from exc
            argv, stand_in = fewer
            rewritten = replace(rewritten, argv=argv, stand_ins=(*rewritten.stand_ins, stand_in))
    raise NotStartedError("this QEMU lacks too many properties", rewritten.stand_ins)


def _without_path(message: str) -> str:
    return re.sub(r"^\S*qemu-system-\S+: ", "", message, flags=re.MULTILINE)


def _make_files(rewritten: Rewritten) -> None:
    for file in rewritten.files:
        match file.kind:
            case "folder":
                make_folder(file.path)
            case "kernel":
                make_file(file.path, small_kernel())
            case "blank":
                make_file(file.path, bytes(file.size_bytes))
            case _:
                make_image(file.path, format_=file.format, size_bytes=file.size_bytes)


def small_kernel() -> bytes:
    """Give the least that QEMU takes for a Linux kernel: a boot sector and a setup sector with its header.

    Format: Linux' Documentation/arch/x86/boot.rst; read by x86_load_linux() in QEMU's hw/i386/x86.c.
    """
    image = bytearray(16 << 10)
    image[0x1F1] = 1  # setup sectors
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = (0x020C).to_bytes(2, "little")
    image[0x211] = 1  # loaded high
    image[0x22C:0x230] = (0x7FFFFFFF).to_bytes(4, "little")  # highest address of an initrd
    image[0x236:0x238] = (0).to_bytes(2, "little")
    image[0x238:0x23C] = (2047).to_bytes(4, "little")  # longest command line
    return bytes(image)


