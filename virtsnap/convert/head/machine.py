"""-machine, -accel, -name, -uuid become the head of the domain, made from the machine family's template."""

from __future__ import annotations

import re
import uuid as uuid_module
from collections.abc import Mapping

from virtsnap.command_line.options import CommandLine
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.machines import (
    DEFAULT_MACHINE,
    LIBVIRT_ARCH,
    Machine,
    arch_of_emulator,
    default_memory_kib,
    family_of,
)
from virtsnap.convert.ledger import NotSayable, Outcome, Word, refuse
from virtsnap.convert.rows import Version
from virtsnap.convert.values import UUID
from virtsnap.errors import CommandLineError

# QEMU's accelerators that a domain can have; the others become emulation.
DOMAIN_TYPES = {"kvm": "kvm", "tcg": "qemu", "hvf": "hvf"}
# Architectures that came to libvirt late.
ARCH_SINCE: Mapping[str, Version] = {"loongarch64": (10, 1)}
MACHINE_TYPE = re.compile(r"[a-zA-Z0-9_.-][a-zA-Z0-9_.+-]*")
KVM_EMULATORS = re.compile(r"(?:qemu-)?kvm(?:-spice)?$")


def read_machine(command_line: CommandLine) -> Machine:
    """Find out arch, machine type and accelerator of a command line; nothing is claimed yet."""
    arch = arch_of_emulator(command_line.emulator)
    machine_type, accel = None, None
    for option in command_line.group("machine"):
        machine_type = option.properties.get("type") or machine_type
        accel = option.properties.get("accel") or accel
    for option in command_line.group("accel"):
        accel = option.properties.get("accel") or accel
        break  # the first -accel is the one that QEMU tries first
    if command_line.group("enable-kvm") or (accel is None and KVM_EMULATORS.search(command_line.emulator)):
        accel = "kvm"
    for option in command_line.group("no-kvm"):
        accel = "tcg" if option else accel
    if arch == "aarch64" and _is_32_bit(command_line):
        arch = "armv7l"
    if machine_type is not None and not MACHINE_TYPE.fullmatch(machine_type):
        option = command_line.group("machine")[-1]
        raise CommandLineError(
            f"{option.text}: {machine_type!r} is no machine type", argument=option.last,
            hint="`qemu-system-… -machine help` lists them",
        )
    machine_type = machine_type or DEFAULT_MACHINE.get(arch, "none")
    return Machine(
        arch=arch, type=machine_type, accel=(accel or "tcg").split(":")[0], family=family_of(arch, machine_type)
    )


def _is_32_bit(command_line: CommandLine) -> bool:
    """Tell whether a 64-bit ARM CPU runs without its 64-bit mode: to libvirt, the architecture is another."""
    cpus = command_line.group("cpu")
    return bool(cpus) and cpus[-1].properties.get("aarch64") == "off"


def convert_machine(draft: Draft) -> None:
    """Start the domain: type, name, uuid, os type, emulator."""
    machine = draft.machine
    uuid = draft.last("uuid")
    template = f"machines/{machine.family.name}"
    known = draft.templates.holes_of(template)
    memory = {"memory_kib": str(default_memory_kib(machine))} if "memory_kib" in known else {}
    root = draft.templates.fill(
        template,
        {
            **memory,
            "type": DOMAIN_TYPES.get(machine.accel, "qemu"),
            "name": draft.name,
            "uuid": _uuid(uuid) if uuid else None,
            "arch": machine.arch if draft.knows(ARCH_SINCE.get(machine.arch, (0, 0))) else None,
            "machine": machine.type.partition("+")[0],
            "emulator": emulator_path(draft),
        },
    )
    draft.start(root)
    if not draft.knows(ARCH_SINCE.get(machine.arch, (0, 0))):
        draft.warn(f"the libvirt that this is written for has no {machine.arch}: it cannot start the domain")
    for word in draft.group("machine", "accel", "enable-kvm", "no-kvm"):
        word.claim("type", Outcome.MAPPED)
        if "+" in (word.peek("type") or ""):
            # libvirt's schema has no plus sign; Proxmox VE's QEMU takes `pc+pve0` as well as `pc`.
            word.claim("type", Outcome.SUBSTITUTED, "the vendor's revision behind the plus sign is left out")
        _claim_accel(machine, word)
        word.land(root)
    for word in draft.group("uuid"):
        word.claim("uuid", Outcome.MAPPED)
        word.land(*root.findall("uuid"))
    for word in draft.group("name"):
        word.claim("guest", Outcome.MAPPED)
        word.land(root[0])


def emulator_path(draft: Draft) -> str:
    """Give the emulator as the absolute path that libvirt's schema asks for.

    A bare name is looked up where the caller said how. `kvm` and `qemu`, which may be a
    script or nothing at all, stand for the emulator of the machine's architecture.
    """
    emulator = draft.command_line.emulator
    if "/" in emulator:
        try:
            return draft.absolute(emulator)
        except NotSayable as exc:
            raise CommandLineError(f"{emulator!r} is no path of a program: {exc}", argument=0) from exc
    arch = {libvirt: qemu for qemu, libvirt in LIBVIRT_ARCH.items()}.get(draft.machine.arch, draft.machine.arch)
    real = f"qemu-system-{arch}"
    names = [emulator] if "-system-" in emulator or emulator == "qemu-kvm" else [real, emulator]
    found = [draft.find_program(name) for name in names] if draft.find_program else []
    return next((path for path in found if path), f"/usr/bin/{names[0]}")


def _claim_accel(machine: Machine, word: Word) -> None:
    for key in ("enable-kvm", "no-kvm"):
        word.claim(key, Outcome.MAPPED)
    wanted = word.peek("accel")
    if wanted is None:
        return
    if wanted == machine.accel and wanted in DOMAIN_TYPES:
        word.claim("accel", Outcome.MAPPED)
    elif machine.accel in DOMAIN_TYPES:
        word.claim("accel", Outcome.SUBSTITUTED, f"libvirt takes {machine.accel} and no other in its place")
    else:
        word.claim("accel", Outcome.SUBSTITUTED, "libvirt has no such accelerator: the domain is emulated")


def _uuid(word: Word) -> str:
    text = word.take("uuid") or ""
    if UUID.fullmatch(text) is None:
        hint = "give one such as 6a0b2c8e-0e5d-4b9e-8f0a-3c1d5e7f9a2b"
        raise refuse(word.option, f"{text!r} is not a UUID", hint)
    return str(uuid_module.UUID(text))


def domain_name(command_line: CommandLine, wanted: str | None, default: str | None) -> str:
    """Choose the domain's name: the caller's, that of -name, the default, else `guest`."""
    given = [option.properties.get("guest") for option in reversed(command_line.group("name"))]
    chosen = wanted or next((name for name in given if name), None) or default or "guest"
    # libvirt refuses `/` and line breaks in a domain's name.
    return re.sub(r"[/\n\r\t]", "_", chosen)
