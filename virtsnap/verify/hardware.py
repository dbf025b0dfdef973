"""A stopped machine becomes what its guest would see: devices at their places, CPU, memory, firmware.

Ids, node names and paths of the host are left out: they name things for
QEMU's user. What is left out besides is a row with its reason.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from virtsnap.errors import VirtsnapError
from virtsnap.verify.fw_cfg import (
    boot_order,
    read_cmos,
    read_files,
    read_keys,
    smbios_structures,
    split_boot_letters,
)
from virtsnap.verify.qtree import Node, parse_qtree, placed


class Machine(Protocol):
    """What can be asked."""

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command."""

    def hmp(self, line: str) -> str:
        """Run a command of the human monitor."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device at its place. `properties` are those that the guest can see."""

    place: str
    bus: str
    driver: str
    properties: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """All that was read. `facts` maps a subject (cpu, memory, …) to named values."""

    devices: tuple[Device, ...]
    facts: Mapping[str, Mapping[str, str]]


# Properties of devices that a guest cannot see, by reason.
UNSEEN: Mapping[str, str] = {
    **dict.fromkeys(("werror", "rerror", "share-rw", "account-invalid", "account-failed", "backend_defaults",
                     "iothread", "iothread-vq-mapping", "ioeventfd", "tx", "x-txtimer", "x-txburst", "pcap",
                     "vhostforce", "audiodev", "display", "head", "dump-guest-core", "mem-merge", "masterbus"),
                    "how the host serves it"),
    **dict.fromkeys(("failover_pair_id", "migrate-extra", "extended-state", "acpi-mr-restore"),
                    "about migration"),
    "write-cache": "what is asked for; what is in force is read from the drive",
    **dict.fromkeys(("fdtypeA", "fdtypeB"), "what is asked for; the type in force is the floppy drive's own"),
    **dict.fromkeys(("vram64_size_mb", "vram_size_mb", "ram_size_mb"), "what is in force is seen in the BARs"),
    **dict.fromkeys(("disable-legacy", "disable-modern"), "what is in force is seen in the PCI id and the BARs"),
    "usb_version": "the speed in force is read from the port",
    **dict.fromkeys(("has-acpi", "has-usb"), "the southbridge's own functions are devices beside it"),
    "masterbus": "the name of a bus; the companion's place says whose it is",
}
# What only says which place was asked for: the place itself is compared.
UNSEEN_ON_A_BUS = frozenset({("usb-bus", "port")})
# Properties that name a backend: whether there is one is all that can be seen.
BACKENDS = frozenset({"netdev", "chardev", "rng", "cryptodev", "fsdev", "memdev", "canbus", "canbus0", "canbus1",
                      "hostmem", "tpmdev"})
_DRIVES = frozenset({"drive", "driveA", "driveB"})

# Properties of the machine object that name things or say how the host serves it.
UNSEEN_OF_THE_MACHINE = frozenset({
    "memory-backend", "pflash0", "pflash1", "dump-guest-core", "mem-merge", "usb", "dumpdtb", "memory-encryption",
    "confidential-guest-support", "suppress-vmdesc", "hotplugged", "phandle-start", "rtc-time", "kernel-irqchip",
    "accel", "memory",
})
# In the boot order's facts: -boot's letters, and the letters that the listed devices would have.
LETTERS, KINDS = "letters", "kinds"
_DISK_DRIVERS = ("-hd", "-cd", "virtio-blk-pci", "virtio-blk-device", "nvme", "usb-storage", "usb-bot", "usb-uas",
                 "scsi-block", "scsi-generic")
# Such a kind is another word for disable-legacy and disable-modern.
_VIRTIO_VARIANT = re.compile(r"-(?:non-)?transitional$")
_SIMPLE = re.compile(r"bool|string|str|u?int\d*|size|size_t|OnOff\w*|EndianMode|\w*Smm\w*")
UNSEEN_OF_THE_CPU = frozenset({
    "realized", "hotplugged", "hotpluggable", "start-powered-off", "legacy-memory", "type", "crash-information",
    "x-l1-cache-per-thread", "tcg-cpuid", "lbr-fmt",
})


def read_hardware(machine: Machine) -> Hardware:
    """Read everything; raises VirtsnapError where the machine does not answer."""
    drives = _drives(machine)
    tree = parse_qtree(machine.hmp("info qtree"))
    devices = [
        Device(
            place=place, bus=bus, driver=_VIRTIO_VARIANT.sub("", node.driver),
            properties=dict(_visible(node, bus, drives)),
        )
        for place, bus, node in placed(tree)
    ]
    devices += _devices_without_bus(machine)
    facts = {
        "machine": _machine(machine),
        "cpu": _cpu(machine),
        "topology": _topology(machine),
        "memory": _memory(machine),
        "PCI": dict(_pci(machine.execute("query-pci"))),
        "firmware": _roms(machine),
        **_firmware_configuration(machine),
    }
    return Hardware(devices=tuple(devices), facts=facts)


def _drives(machine: Machine) -> dict[str, str]:
    """Say of each drive, by device and by node name, what a guest sees of its medium."""
    found = {}
    for entry in machine.execute("query-block"):
        inserted = entry.get("inserted")
        if inserted is None:
            text = "empty"
        else:
            size = inserted.get("image", {}).get("virtual-size", 0)
            cache = "write-back" if inserted.get("cache", {}).get("writeback", True) else "write-through"
            text = f"{size} bytes, {'read-only' if inserted.get('ro') else 'writable'}, {cache}"
            found[inserted.get("node-name", "")] = text
        found[entry.get("device", "")] = text
    found[""] = "empty"
    return found


def _visible(node: Node, bus: str, drives: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in node.properties.items():
        if name in UNSEEN or (bus, name) in UNSEEN_ON_A_BUS:
            continue
        if name in _DRIVES:
            medium = drives.get(value, f"unknown ({value})")
            # A CD cannot be written to, whatever the host may do with its image.
            yield name, medium.split(",")[0] if node.driver.endswith("-cd") else medium
        elif name in BACKENDS:
            yield name, "connected" if value else "none"
        elif name == "romfile":
            yield name, value.rsplit("/", 1)[-1]
        elif name == "msos-desc" and node.driver == "usb-host":
            continue
        else:
            yield name, value
    memory = 0
    for remark in node.remarks:
        if found := re.search(r"pci id (\S+) \(sub (\S+)\)", remark):
            yield "PCI id", found[1]
            yield "PCI subsystem id", found[2]
            if class_ := re.match(r"class (.*?), addr", remark):
                yield "PCI class", class_[1]
        elif found := re.match(r"(bar \d+): (\S+) at \S+ \[(\S+)\]", remark):
            yield found[1], f"{found[2]} {found[3]}"
        elif found := re.search(r"speed (\d+), name (.*?)(?:, attached)?$", remark):
            yield "speed", found[1]
            yield "USB name", found[2]
        elif remark.startswith("mmio "):
            yield f"mmio {memory}", remark.removeprefix("mmio ")
            memory += 1


def _simple_properties(machine: Machine, path: str, unseen: Iterable[str]) -> dict[str, str]:
    values = {}
    for entry in machine.execute("qom-list", path=path):
        name, type_ = entry["name"], entry["type"]
        if name in unseen or not _SIMPLE.fullmatch(type_):
            continue
        try:
            values[name] = str(machine.execute("qom-get", path=path, property=name))
        except VirtsnapError:
            continue  # a property that can only be written, or has no value yet
    return values


def _devices_without_bus(machine: Machine) -> list[Device]:
    """Find what the tree does not show: devices on no bus (vmgenid, a TPM's CRB)."""
    found: list[Device] = []
    counts: dict[str, int] = {}
    for place in ("/machine/peripheral", "/machine/peripheral-anon"):
        for entry in machine.execute("qom-list", path=place):
            if not entry["type"].startswith("child<"):
                continue
            driver = entry["type"][6:-1]
            path = f"{place}/{entry['name']}"
            if driver.endswith("-cpu") or driver in ("pc-dimm", "nvdimm") or _has_bus(machine, path):
                continue
            number = counts[driver] = counts.get(driver, 0) + 1
            unseen = {"type", "hotplugged", "hotpluggable", "realized", "parent_bus", *UNSEEN}
            properties = _simple_properties(machine, path, unseen)
            where = driver if number == 1 else f"{driver}#{number}"
            found.append(Device(place=f"(no bus) {where}", bus="", driver=driver, properties=properties))
    return found


def _has_bus(machine: Machine, path: str) -> bool:
    try:
        return bool(machine.execute("qom-get", path=path, property="parent_bus"))
    except VirtsnapError:
        return True


def _machine(machine: Machine) -> dict[str, str]:
    values = _simple_properties(machine, "/machine", UNSEEN_OF_THE_MACHINE)
    # Only `off` turns it off: x86_machine_is_acpi_enabled() in QEMU's hw/i386/x86.c, virt_is_acpi_enabled() in
    # hw/arm/virt.c. libvirt says `on` where QEMU has the switch.
    if values.get("acpi") == "auto":
        values["acpi"] = "on"
    return {name: value.rsplit("/", 1)[-1] if name in ("kernel", "initrd", "firmware") else value
            for name, value in values.items()}


def _cpu(machine: Machine) -> dict[str, str]:
    cpus = machine.execute("query-cpus-fast")
    path = cpus[0]["qom-path"]
    values = _simple_properties(machine, path, UNSEEN_OF_THE_CPU)
    for name in ("socket-id", "core-id", "thread-id", "die-id", "module-id", "node-id", "apic-id"):
        values.pop(name, None)  # they are the topology's
    values["model"] = str(machine.execute("qom-get", path=path, property="type"))
    return values


def _topology(machine: Machine) -> dict[str, str]:
    values = {}
    for cpu in machine.execute("query-cpus-fast"):
        values[f"CPU {cpu['cpu-index']}"] = _sorted_text(cpu.get("props", {}))
    try:
        slots = machine.execute("query-hotpluggable-cpus")
    except VirtsnapError:
        return values  # a machine without CPU hotplug
    values["slots"] = " ".join(sorted(f"{_sorted_text(slot['props'])}×{slot['vcpus-count']}" for slot in slots))
    return values


def _memory(machine: Machine) -> dict[str, str]:
    summary = machine.execute("query-memory-size-summary")
    values = {"base bytes": str(summary["base-memory"]), "plugged bytes": str(summary.get("plugged-memory", 0))}
    for number, device in enumerate(machine.execute("query-memory-devices")):
        data = {k: v for k, v in device["data"].items() if k not in ("id", "memdev", "hotplugged", "hotpluggable")}
        values[f"{device['type']} {number}"] = _sorted_text(data)
    for line in machine.hmp("info numa").splitlines():
        name, _, value = line.partition(":")
        values[f"NUMA {name.strip()}"] = value.strip()
    return values


def _sorted_text(values: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={values[key]}" for key in sorted(values))


def _pci(buses: list[Mapping[str, Any]], path: str = "") -> Iterator[tuple[str, str]]:
    """Give each PCI function by its place: the way through the bridges, because bus numbers come later."""
    for bus in buses:
        for device in bus["devices"]:
            where = f"{path}{device['slot']:02x}.{device['function']}"
            id_, class_ = device["id"], device["class_info"]["class"]
            yield where, (
                f"{id_['vendor']:04x}:{id_['device']:04x} class {class_:04x}"
                f" sub {id_.get('subsystem-vendor', 0):04x}:{id_.get('subsystem', 0):04x} pin {device['irq_pin']}"
            )
            bridge = device.get("pci_bridge")
            if bridge and bridge.get("devices"):
                yield from _pci([{"devices": bridge["devices"]}], f"{where}/")


def _roms(machine: Machine) -> dict[str, str]:
    """Give firmware and option ROMs; folders of the host are left out of the names."""
    values = {}
    for line in machine.hmp("info roms").splitlines():
        found = re.search(r'(?:addr=(\S+) )?size=(\S+).*name="([^"]*)"', line)
        if found:
            name = found[3] if found[3].startswith("etc/") else found[3].rsplit("/", 1)[-1]
            values[name] = f"{found[2]} at {found[1]}" if found[1] else found[2]
    return values


def _boot_kinds(machine: Machine, paths: list[str]) -> str:
    """Give the letter (a, c, d, n) of each device of the boot order, each letter once, as -boot would say it.

    A path does not tell a CD from a disk: the devices with a bootindex do, in the same order.
    """
    indexed = []
    for place in ("/machine/peripheral", "/machine/peripheral-anon"):
        for entry in machine.execute("qom-list", path=place):
            driver = entry["type"].removeprefix("child<").removesuffix(">")
            if entry["type"].startswith("child<") and driver.endswith(_DISK_DRIVERS):
                with contextlib.suppress(VirtsnapError):
                    path = f"{place}/{entry['name']}"
                    index = int(machine.execute("qom-get", path=path, property="bootindex"))
                    indexed.append((index, "d" if driver.endswith("-cd") else "c"))
    disks = iter([letter for index, letter in sorted(indexed) if index >= 0])
    kinds = []
    for path in paths:
        if path == "HALT":
            continue
        if "floppy@" in path or "/fdc@" in path:
            kinds.append("a")
        elif "ethernet" in path:
            kinds.append("n")
        else:
            kinds.append(next(disks, "c"))
    return "".join(dict.fromkeys(kinds))


def _firmware_configuration(machine: Machine) -> dict[str, dict[str, str]]:
    files = read_files(machine.hmp)
    config = {name: str(value) for name, value in read_keys(machine.hmp).items()}
    smbios: dict[str, str] = {}
    for file in files:
        if file.name == "bootorder":
            continue
        if file.name == "etc/smbios/smbios-tables" and file.content is not None:
            counts: dict[int, int] = {}
            for type_, area, texts in smbios_structures(file.content):
                number = counts[type_] = counts.get(type_, 0) + 1
                smbios[f"type {type_} #{number}"] = " | ".join([area.hex(), *texts])
            continue
        config[file.name] = f"{file.size_bytes} bytes" if file.content is None else file.content.hex()
    paths = boot_order(files)
    order = {str(number): path for number, path in enumerate(paths, start=1)}
    letters, rest = split_boot_letters(read_cmos(machine.hmp))
    order |= {LETTERS: letters, KINDS: _boot_kinds(machine, paths)}
    cmos = {f"{index:#04x}": f"{value:#04x}" for index, value in rest.items()}
    return {"boot order": order, "SMBIOS": smbios, "firmware configuration": config, "CMOS": cmos}
