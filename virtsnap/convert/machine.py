"""-machine, -accel, -name, -uuid become the head of the domain, made from the machine family's template."""

from __future__ import annotations

import re
import uuid as uuid_module

from virtsnap.command_line.options import CommandLine
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome
from virtsnap.convert.machines import DEFAULT_MACHINE, LIBVIRT_ARCH, Machine, arch_of_emulator, family_of

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
    machine_type = machine_type or DEFAULT_MACHINE.get(arch, "none")
    return Machine(
        arch=arch, type=machine_type, accel=(accel or "tcg").split(":")[0], family=family_of(arch, machine_type)
    )


def convert_machine(draft: Draft) -> None:
    """Start the domain: type, name, uuid, os type, emulator."""
    machine = draft.machine
    name, uuid = draft.last("name"), draft.last("uuid")
    root = draft.templates.fill(
        f"machines/{machine.family.name}",
        {
            "type": "kvm" if machine.accel == "kvm" else "qemu",
            "name": draft.name,
            "uuid": _uuid(uuid.take("uuid")) if uuid else None,
            "arch": machine.arch,
            "machine": machine.type,
            "emulator": emulator_path(draft),
        },
    )
    draft.start(root)
    for word in draft.group("machine", "accel"):
        word.claim("type", Outcome.MAPPED)
        word.claim("accel", Outcome.MAPPED)
        word.land(root)
    for word in draft.group("enable-kvm"):
        word.claim("enable-kvm", Outcome.MAPPED)
        word.land(root)
    if name is not None:
        name.take("guest")
        name.land(root[0])


def emulator_path(draft: Draft) -> str:
    """Give the emulator as the absolute path that libvirt's schema asks for.

    A bare name is looked up where the caller said how; `kvm`, `qemu` and what is
    not found stand for the emulator of the machine's architecture in /usr/bin.
    """
    emulator = draft.command_line.emulator
    if "/" in emulator:
        return draft.absolute(emulator)
    found = draft.find_program(emulator) if draft.find_program else None
    if found:
        return found
    if "-system-" in emulator or emulator == "qemu-kvm":
        return f"/usr/bin/{emulator}"
    arch = {libvirt: qemu for qemu, libvirt in LIBVIRT_ARCH.items()}.get(draft.machine.arch, draft.machine.arch)
    return f"/usr/bin/qemu-system-{arch}"


def _uuid(text: str | None) -> str | None:
    try:
        return str(uuid_module.UUID(text)) if text else None
    except ValueError:
        return None


def domain_name(command_line: CommandLine, wanted: str | None, default: str | None) -> str:
    """Choose the domain's name: the caller's, that of -name, the default, else `guest`."""
    given = [option.properties.get("guest") for option in reversed(command_line.group("name"))]
    chosen = wanted or next((name for name in given if name), None) or default or "guest"
    # libvirt refuses `/` and line breaks in a domain's name.
    return re.sub(r"[/\n\r\t]", "_", chosen)
