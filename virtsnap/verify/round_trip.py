"""A command line and what libvirt would start for its domain become the list of what differs between them.

libvirt's own domxml-to-native is the judge: the domain goes through it, and
both command lines are brought to the same terms, a machine, a CPU, a topology,
memory and a bag of devices with the properties that a guest can see. What libvirt
always writes differently is a row of SYSTEMATIC with its reason (docs/converting.md, "Round trip").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from virtsnap.command_line.options import CommandLine, Option, parse_options
from virtsnap.convert.head.machines import arch_of_emulator, family_of
from virtsnap.convert.values import FALSE_WORDS, TRUE_WORDS, parse_number, parse_size_bytes

Values = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A command line in terms that two of them can be compared in."""

    heads: Mapping[str, Values]
    devices: tuple[tuple[str, Values], ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the round trip changed. `reason` is set where libvirt always does so."""

    subject: str
    where: str
    argv: str | None
    libvirt: str | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class SystematicRow:
    """A change that libvirt always makes, by subject and a pattern of its place, with the reason.

    `values` is a pattern of both values, with a blank between them.
    """

    subject: str
    pattern: str
    side: str
    reason: str
    values: str = ".*"


# `side`: added (only libvirt says it), lost (only argv said it), changed.
SYSTEMATIC: tuple[SystematicRow, ...] = (
    SystematicRow(subject="machine", pattern=r"usb|vmport|dump-guest-core|memory-backend|smm|hpet|acpi|pflash\d",
                  side="added", reason="libvirt writes the machine's parts out, with the value that they have"),
    SystematicRow(subject="machine", pattern=r"type", side="changed", reason="libvirt writes out the version",
                  values=r"(?:pc pc-i440fx|q35 pc-q35|(virt|pseries|s390-ccw-virtio) \1)-\w+(?:\.\w+)*"),
    SystematicRow(subject="machine", pattern=r"accel", side="changed", reason="the first accelerator counts"),
    SystematicRow(subject="machine", pattern=r"usb", side="lost", reason="the controller is a device of its own"),
    SystematicRow(subject="cpu", pattern=r"model", side="added",
                  reason="argv without -cpu has the machine's own model, and libvirt names it"),
    SystematicRow(subject="smp", pattern=r"sockets|cores|threads|dies|clusters|maxcpus", side="added",
                  reason="libvirt writes the topology out; the numbers that argv left out follow from the others"),
    SystematicRow(subject="memory", pattern=r"maxmem|slots", side="added", reason="memory can be plugged"),
    SystematicRow(subject="device", pattern=r"isa-fdc|pci-bridge|pcie-root-port|.*usb.*|virtio-serial-pci|ahci",
                  side="added", reason="a controller that the machine or a device of argv brings along"),
    SystematicRow(subject="device", pattern=r".*: (?:nr|port|chassis|chassis_nr|slot)",
                  side="added", reason="libvirt writes the number out that QEMU would have counted to"),
    SystematicRow(subject="device", pattern=r".*: (?:write-cache|device_id|share-rw|channel|scsi-id|lun|unit)",
                  side="added", reason="libvirt writes places and cache modes of disks out"),
    SystematicRow(subject="device", pattern=r".*: (?:v?ram_size|vram64_size_mb|vgamem_mb|max_outputs|edid)",
                  side="added", reason="libvirt writes the video memory out"),
    SystematicRow(subject="device", pattern=r".*: (?:msi|p2|p3|vectors|bootindex|index|mac|masterbus|firstport)",
                  side="added", reason="a default that libvirt or the converter writes out"),
    SystematicRow(subject="device", pattern=r".*: bootindex", side="changed",
                  reason="libvirt counts <boot order> from 1, QEMU takes any numbers; their order is kept"),
)

# What names things, or is the host's side of a device.
_NAMES = frozenset({
    "id", "driver", "bus", "addr", "drive", "netdev", "chardev", "rng", "fsdev", "audiodev", "memdev", "tpmdev",
    "iothread", "werror", "rerror", "vhost", "multifunction", "scsi", "fds", "vhostfds", "vhostfd", "host",
    "ioeventfd", "event_idx", "acpi-index", "cad", "share-rw", "node", "romfile",
})
_ALIASES: Mapping[str, str] = {
    "virtio-net": "virtio-net-pci", "virtio-blk": "virtio-blk-pci", "virtio-serial": "virtio-serial-pci",
    "virtio-balloon": "virtio-balloon-pci", "virtio-scsi": "virtio-scsi-pci", "virtio-rng": "virtio-rng-pci",
    "virtio-gpu": "virtio-gpu-pci", "virtio-9p": "virtio-9p-pci", "virtio-tablet": "virtio-tablet-pci",
    "virtio-keyboard": "virtio-keyboard-pci", "virtio-mouse": "virtio-mouse-pci", "ich9-ahci": "ahci",
    "lsi": "lsi53c895a", "ide-drive": "ide-hd", "e1000-82540em": "e1000",
}
_VGA: Mapping[str, str] = {
    "std": "VGA", "cirrus": "cirrus-vga", "vmware": "vmware-svga", "qxl": "qxl-vga", "virtio": "virtio-vga",
}
_NIC: Mapping[str, str] = {"virtio": "virtio-net-pci"}


def read_terms(argv: Sequence[str]) -> Terms:
    """Bring a command line to terms; raises CommandLineError where it cannot be read."""
    line = parse_options(argv)
    return Terms(
        heads={"machine": _machine(line), "cpu": _cpu(line), "smp": _smp(line), "memory": _memory(line)},
        devices=tuple(sorted(_devices(line), key=lambda device: (device[0], sorted(device[1].items())))),
    )


def compare_round_trip(argv: Sequence[str], libvirt: Sequence[str]) -> tuple[Change, ...]:
    """Give what changed between a command line and the one that libvirt made of its domain."""
    ours, theirs = read_terms(argv), read_terms(libvirt)
    changes: list[Change] = []
    for subject, values in ours.heads.items():
        changes.extend(_changes(subject, "", values, theirs.heads[subject]))
    changes.extend(_device_changes(ours.devices, theirs.devices))
    return tuple(_explained(change) for change in changes)


def _explained(change: Change) -> Change:
    side = "added" if change.argv is None else "lost" if change.libvirt is None else "changed"
    for row in SYSTEMATIC:
        placed = (row.subject, row.side) == (change.subject, side) and re.fullmatch(row.pattern, change.where)
        if placed and re.fullmatch(row.values, f"{change.argv or ''} {change.libvirt or ''}", re.DOTALL):
            return replace(change, reason=row.reason)
    return change


def _changes(subject: str, where: str, ours: Values, theirs: Values) -> Iterator[Change]:
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            yield Change(subject=subject, where=f"{where}{name}", argv=ours.get(name), libvirt=theirs.get(name))


def _device_changes(
    ours: Sequence[tuple[str, Values]], theirs: Sequence[tuple[str, Values]]
) -> Iterator[Change]:
    left, right = list(ours), list(theirs)
    for device in ours:
        driver, values = device
        candidates = [other for other in right if other[0] == driver]
        if not candidates:
            continue
        match = max(candidates, key=lambda other: sum(other[1].get(k) == v for k, v in values.items()))
        left.remove(device)
        right.remove(match)
        yield from _changes("device", f"{driver}: ", values, match[1])
    for driver, values in left:
        yield Change(subject="device", where=driver, argv=_text(values), libvirt=None)
    for driver, values in right:
        yield Change(subject="device", where=driver, argv=None, libvirt=_text(values))


def _text(values: Values) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(values.items())) or "present"


def _normal(value: str) -> str:
    """Bring the notations of one value together: on/yes/true, 0x10/16, mac addresses' case."""
    low = value.lower()
    if low in TRUE_WORDS:
        return "on"
    if low in FALSE_WORDS:
        return "off"
    if re.fullmatch(r"0x[0-9a-f]+", low):
        return str(parse_number(low))
    return low if re.fullmatch(r"(?:[0-9a-f]{1,2}:){5}[0-9a-f]{1,2}", low) else value


def _machine(line: CommandLine) -> Values:
    values: Values = {}
    for option in line.group("machine"):
        values.update({item.key.replace("_", "-"): _normal(item.value) for item in option.properties})
    for option in line.group("accel"):
        values.setdefault("accel", option.properties.get("accel") or "")
    if line.group("enable-kvm"):
        values["accel"] = "kvm"
    if line.group("no-hpet"):
        values["hpet"] = "off"
    if line.group("no-acpi"):
        values["acpi"] = "off"
    values.setdefault("accel", "tcg")
    values.setdefault("type", "pc")
    values.pop("graphics", None)
    return values


def _cpu(line: CommandLine) -> Values:
    values: Values = {}
    for option in line.group("cpu")[-1:]:
        for item in option.properties:
            values[item.key.replace("_", "-").replace(".", "-")] = _normal(item.value)
    return values


def _smp(line: CommandLine) -> Values:
    values: Values = {}
    for option in line.group("smp"):
        values.update({item.key: item.value for item in option.properties})
    if values and "cpus" not in values:
        product = 1
        for key in ("sockets", "cores", "threads", "dies", "clusters"):
            product *= int(values.get(key, "1"))
        values["cpus"] = str(product)
    return values or {"cpus": "1"}


def _memory(line: CommandLine) -> Values:
    values = {"size": str(128 << 20)}
    for option in line.group("m"):
        for item in option.properties:
            try:
                size = parse_size_bytes(item.value, default_suffix="" if item.key == "slots" else "m")
            except ValueError:
                continue
            values[item.key] = str(size)
    return values


def _devices(line: CommandLine) -> Iterator[tuple[str, Values]]:
    family = family_of(arch_of_emulator(line.emulator), _machine(line)["type"])
    for option in line.options:
        yield from _device_of(option, family.default_drive_if)
    if line.group("nodefaults"):
        return
    if family.default_vga and not line.group("vga") and not any("vga" in d.lower() for d in _drivers(line)):
        yield _VGA.get(family.default_vga, family.default_vga), {}
    if family.default_nic and not (line.group("net") or line.group("netdev") or line.group("nic")):
        yield _NIC.get(family.default_nic, family.default_nic), {}


def _drivers(line: CommandLine) -> list[str]:
    return [option.properties.get("driver") or "" for option in line.group("device")]


def _device_of(option: Option, drive_if: str | None) -> Iterator[tuple[str, Values]]:
    get = option.properties.get
    match option.group:
        case "device":
            driver = get("driver") or ""
            values = {item.key: _normal(item.value) for item in option.properties if item.key not in _NAMES}
            yield _ALIASES.get(driver, driver), values
        case "vga" if get("vga") in _VGA:
            yield _VGA[get("vga") or ""], {}
        case "net" | "nic" if get("type") == "nic" or (option.group == "nic" and get("type") != "none"):
            model = get("model") or "e1000"
            mac = get("macaddr") or get("mac")
            yield _NIC.get(_ALIASES.get(model, model), _ALIASES.get(model, model)), (
                {"mac": _normal(mac)} if mac else {}
            )
        case "drive":
            interface = get("if") or drive_if or ""
            kind = {"virtio": "virtio-blk-pci", "floppy": "floppy", "scsi": "scsi-hd"}.get(interface)
            if interface == "ide":
                kind = "ide-cd" if get("media") == "cdrom" else "ide-hd"
            if kind:
                yield kind, {}
        case "virtfs":
            yield "virtio-9p-pci", {"mount_tag": get("mount_tag") or ""}
        case "usbdevice":
            yield f"usb-{get('usbdevice')}", {}
        case "watchdog":
            yield get("watchdog") or "", {}
        case "serial" if option.argument != "none":
            yield "isa-serial", {}
        case "parallel" if option.argument != "none":
            yield "isa-parallel", {}
        case _:
            return
