"""What may stand in for what: one handler for each group of options, and tables of reasons.

Only what the guest cannot see is changed, or what cannot be had: a NIC keeps
its model and loses its tap, a disk keeps its size and loses its contents.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from virtsnap.command_line.keyval import join_commas, split_commas
from virtsnap.command_line.options import Option
from virtsnap.convert.unwritten.vendor_configs import vendor_config
from virtsnap.convert.values import parse_number, parse_size_bytes
from virtsnap.verify.stand_ins import (
    DEFAULT_CDROM_BYTES,
    DEFAULT_DISK_BYTES,
    FLOPPY_BYTES,
    MIB,
    PFLASH_CODE_BYTES,
    PFLASH_VARS_BYTES,
    Handler,
    Items,
    Scene,
    items_of,
    without,
    written,
)

# Options that are about the process on the host, or about monitors: nothing of them is hardware.
PLUMBING: Mapping[str, str] = {
    **dict.fromkeys(("monitor", "qmp", "qmp-pretty", "mon"), "a monitor of its own is used"),
    **dict.fromkeys(("pidfile", "daemonize", "runas", "runas-user", "chroot", "run-with"), "about the process"),
    **dict.fromkeys(("D", "d", "dfilter", "trace", "msg", "plugin", "writeconfig"), "about logs and plugins"),
    **dict.fromkeys(("gdb", "s"), "a debugger's port"),
    **dict.fromkeys(("incoming", "loadvm"), "the machine starts at reset, not from a stream"),
    **dict.fromkeys(("mem-path", "mem-prealloc", "overcommit", "realtime"), "about the host's memory"),
    **dict.fromkeys(("sandbox", "add-fd", "nouserconfig"), "about the process"),
    **dict.fromkeys(("sdl", "curses", "full-screen", "no-frame", "alt-grab", "ctrl-grab", "no-quit", "g"),
                    "a window on the host"),
    **dict.fromkeys(("redir", "smb", "bootp", "tftp", "clients"), "about the host's network"),
    "S": "the machine is stopped anyway",
    "iscsi": "no image is opened by iSCSI",
    **dict.fromkeys(("no-fd-bootchk", "nodefconfig", "win2k-hack", "rtc-td-hack", "no-kvm-pit-reinjection",
                     "no-kvm-irqchip", "no-kvm-pit", "old-param", "enable-fips"),
                    "an option of older QEMUs"),
    "unknown": "only another QEMU knows this option",
}

PROTOCOLS = frozenset({
    "file", "host_device", "host_cdrom", "nbd", "rbd", "iscsi", "ssh", "http", "https", "ftp", "ftps", "gluster",
    "nfs", "sheepdog", "vvfat", "nvme", "vxhs", "virtio-blk-vhost-vdpa", "virtio-blk-vhost-user", "io_uring",
})
KEPT_OF_A_PROTOCOL = ("node-name", "read-only", "auto-read-only", "discard", "detect-zeroes", "cache")
# Keys of a -drive that say where the image is, or how the host reads it.
HOST_SIDE_OF_A_DRIVE = ("aio", "file.aio", "file.locking", "locking")

CHARDEVS_OF_THE_HOST = frozenset({
    "socket", "udp", "pipe", "file", "pty", "serial", "tty", "parallel", "parport", "stdio", "console", "vc",
    "braille", "dbus",
})


@dataclass(frozen=True, kw_only=True)
class DeviceRow:
    """A device that cannot be had here: what stands at its place, and the properties that it keeps."""

    driver: str | None
    keeps: tuple[str, ...]
    reason: str
    needs: tuple[str, ...] = ()


_PCI = ("id", "bus", "addr", "multifunction", "acpi-index")
_USB = ("id", "bus", "port")
_HOST_PCI = DeviceRow(driver="virtio-rng-pci", keeps=_PCI, reason="a host's PCI device", needs=("rng",))
_HOST_USB = DeviceRow(driver="usb-mouse", keeps=_USB, reason="a host's USB device")
_NO_GL = "the host's OpenGL"
_TPM = DeviceRow(driver=None, keeps=(), reason="a TPM needs the host's, or swtpm")

DEVICES: Mapping[str, DeviceRow] = {
    "vfio-pci": _HOST_PCI,
    "vfio-pci-nohotplug": _HOST_PCI,
    "vfio-ap": DeviceRow(driver=None, keeps=(), reason="a host's device"),
    "vfio-ccw": DeviceRow(driver=None, keeps=(), reason="a host's device"),
    "pci-assign": _HOST_PCI,
    "kvm-pci-assign": _HOST_PCI,
    "ivshmem-doorbell": _HOST_PCI,
    "vhost-vsock-pci": replace(_HOST_PCI, reason="needs /dev/vhost-vsock"),
    "vhost-user-fs-pci": replace(_HOST_PCI, reason="a vhost-user daemon"),
    "vhost-user-vsock-pci": replace(_HOST_PCI, reason="a vhost-user daemon"),
    "vhost-user-gpu-pci": DeviceRow(driver="virtio-gpu-pci", keeps=_PCI, reason="a vhost-user daemon"),
    "vhost-user-blk-pci": DeviceRow(
        driver="virtio-blk-pci", keeps=(*_PCI, "bootindex", "num-queues", "queue-size"),
        reason="a vhost-user daemon", needs=("drive",),
    ),
    "vhost-scsi-pci": DeviceRow(driver="virtio-scsi-pci", keeps=_PCI, reason="a vhost target of the host"),
    "usb-host": _HOST_USB,
    "scsi-block": DeviceRow(
        driver="scsi-hd", keeps=("id", "bus", "channel", "scsi-id", "lun", "drive", "bootindex"),
        reason="a host's SCSI device",
    ),
    "scsi-generic": DeviceRow(
        driver="scsi-hd", keeps=("id", "bus", "channel", "scsi-id", "lun", "drive", "bootindex"),
        reason="a host's SCSI device",
    ),
    "virtio-input-host-pci": DeviceRow(driver="virtio-mouse-pci", keeps=_PCI, reason="a host's input device"),
    "tpm-tis": _TPM,
    "tpm-crb": _TPM,
    "tpm-spapr": _TPM,
    "tpm-tis-device": _TPM,
}
# Displays that draw by OpenGL, and their twins: the same PCI function without it.
GL_TWINS: Mapping[str, str] = {
    "virtio-vga-gl": "virtio-vga", "virtio-gpu-gl-pci": "virtio-gpu-pci", "virtio-gpu-gl": "virtio-gpu-pci",
    "virtio-gpu-gl-device": "virtio-gpu-device",
}

OBJECTS_OF_THE_HOST: Mapping[str, str] = {
    "input-linux": "a host's input device",
    "can-host-socketcan": "a host's CAN interface",
    "pr-manager-helper": "a daemon of the host",
    "thread-context": "about the host's CPUs",
    "dbus-vmstate": "a daemon of the host",
    "tls-creds-x509": "about connections to the host",
    "tls-creds-psk": "about connections to the host",
    "tls-creds-anon": "about connections to the host",
    **dict.fromkeys(("sev-guest", "sev-snp-guest", "tdx-guest", "s390-pv-guest", "pef-guest"),
                    "needs a CPU that encrypts memory"),
}
_ENCRYPTION = ("confidential-guest-support", "memory-encryption")

# Features of -cpu that KVM provides; without KVM they cannot be had, and `enforce` would end QEMU.
KVM_FEATURE = re.compile(
    r"[+-]?(?:(?:hv|kvm)[-_].*|vmware-cpuid-freq.*|(?:kvm|enforce|migratable|pmu|invtsc|host-cache-info)(?:=.*)?)"
)


def _plumbing(scene: Scene, option: Option) -> list[str]:
    scene.tell(option, [], PLUMBING[option.group])
    return []


def _source_of(items: Items) -> str | None:
    """Give where the image of a -drive is: its path or URL, or the dotted keys that say it."""
    plain = [value for key, value in items if key in ("file", "file.filename")]
    if plain:
        return plain[-1] or None
    dotted = [(key, value) for key, value in items if key.startswith("file.") and key not in HOST_SIDE_OF_A_DRIVE]
    return ",".join(f"{key}={value}" for key, value in dotted) or None


def _drive(scene: Scene, option: Option) -> list[str] | None:
    get = option.properties.get
    if option.spelling.lstrip("-") != "drive":
        return _drive_shorthand(scene, option)
    items = items_of(option)
    source = _source_of(items)
    kept = without(items, *HOST_SIDE_OF_A_DRIVE, "boot")
    if "boot" in option.properties:
        scene.tell(option, [], "boot=: this QEMU has no such key any more")
    if source is not None:
        now = _image_of_drive(scene, source, interface=get("if"), media=get("media"), format_=get("format"),
                              readonly=(get("readonly") or get("read-only")) in ("on", "yes", "true"),
                              unit=get("unit"))
        if now is not None:
            format_ = [("format", "raw")] if get("format") in ("luks", "host_device", "vvfat") else []
            gone = ("file", "format", "key-secret") if format_ else ("file",)
            kept = [*without(kept, *gone), ("file", now), *format_]
            scene.tell(option, [now], "an image of that size")
    return written(option, kept) if kept != items else None


def _drive_shorthand(scene: Scene, option: Option) -> list[str] | None:
    """Rewrite -hda, -cdrom, -fda, -pflash, or a bare word."""
    get = option.properties.get
    source = get("file")
    if not source:
        return None
    interface = {"-pflash": "pflash", "-fda": "floppy", "-fdb": "floppy"}.get(option.spelling)
    now = _image_of_drive(scene, source, interface=interface, media=get("media"), format_=None, readonly=False,
                          unit=None)
    if now is None:
        return None
    scene.tell(option, [now], "an image of that size")
    return [now] if option.argument is None else [option.spelling, now]


def _image_of_drive(scene: Scene, source: str, *, interface: str | None, media: str | None, format_: str | None,
                    readonly: bool, unit: str | None) -> str | None:
    """Plan the stand-in of a drive's image; None where the file itself can be used (firmware, read-only)."""
    if interface == "pflash":
        if scene.around.is_file(str(scene.absolute(source))) and readonly:
            return None
        first = unit != "1" and (readonly or not any(
            other.properties.get("if") == "pflash" and other.properties.get("readonly") is not None
            for other in scene.command_line.group("drive")
        ))
        size = PFLASH_CODE_BYTES if first else PFLASH_VARS_BYTES
        return scene.image(source, format_=format_ or "raw", default_bytes=size)
    if interface == "floppy":
        return scene.image(source, format_=format_, default_bytes=FLOPPY_BYTES)
    size = DEFAULT_CDROM_BYTES if media == "cdrom" or source.endswith(".iso") else DEFAULT_DISK_BYTES
    known = None if format_ in ("luks", "host_device", "vvfat") else format_
    return scene.image(source, format_=known, default_bytes=size)


def _blockdev(scene: Scene, option: Option) -> list[str] | None:
    argument = option.argument or ""
    tree: dict[str, Any] = (
        json.loads(argument) if argument.startswith("{") else _tree_of(items_of(option))
    )
    before = json.dumps(tree)
    tree = _stand_in_node(scene, tree, _format_above(scene, tree.get("node-name")), _role_of(scene, tree))
    if json.dumps(tree) == before:
        return None
    now = [option.spelling, json.dumps(tree)]
    if not argument.startswith("{"):
        # Values of the flat notation are texts: JSON would have to know every type.
        now = [option.spelling, ",".join(f"{key}={value.replace(',', ',,')}" for key, value in _flat(tree))]
    scene.tell(option, now[1:], "an image of that size")
    return now


def _tree_of(items: Items) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in items:
        *path, last = key.split(".")
        here = tree
        for part in path:
            inner = here.setdefault(part, {})
            if not isinstance(inner, dict):
                inner = here[part] = {}
            here = inner
        here[last] = value
    return tree


def _flat(tree: Mapping[str, Any], path: str = "") -> Items:
    flat: Items = []
    for key, value in tree.items():
        name = f"{path}{key}"
        flat.extend(_flat(value, f"{name}.") if isinstance(value, dict) else [(name, str(value))])
    return flat


def _stand_in_node(scene: Scene, node: dict[str, Any], format_: str, role: str) -> dict[str, Any]:
    driver = node.get("driver")
    if driver in PROTOCOLS:
        source = str(node.get("filename") or node.get("image") or json.dumps(node, sort_keys=True))
        size = {"pflash": PFLASH_CODE_BYTES if _is_on(node.get("read-only")) else PFLASH_VARS_BYTES}.get(
            role, DEFAULT_CDROM_BYTES if source.endswith(".iso") else DEFAULT_DISK_BYTES
        )
        kept = {key: value for key, value in node.items() if key in KEPT_OF_A_PROTOCOL}
        return {"driver": "file", "filename": scene.image(source, format_=format_, default_bytes=size), **kept}
    new = dict(node)
    below = driver if isinstance(driver, str) else "raw"
    if driver == "luks":
        new["driver"], below = "raw", "raw"
        new.pop("key-secret", None)
    if driver in ("throttle", "copy-on-read", "blkdebug", "blkverify", "blklogwrites"):
        below = format_
    for key, value in node.items():
        if isinstance(value, dict) and "driver" in value:
            new[key] = _stand_in_node(scene, value, "raw" if key == "backing" else below, role)
    return new


def _format_above(scene: Scene, name: object) -> str:
    """Find the format of the node that has this one as its file; a chain of filters is followed."""
    for option in scene.command_line.group("blockdev"):
        items = option.properties
        if name is not None and items.get("file") == name:
            driver = items.get("driver") or "raw"
            return _format_above(scene, items.get("node-name")) if driver == "throttle" else driver.replace(
                "luks", "raw")
    return "raw"


def _role_of(scene: Scene, tree: Mapping[str, Any]) -> str:
    """Say pflash for a node that -machine pflash0/1 names, directly or through the node above it."""
    names = {tree.get("node-name")}
    for option in scene.command_line.group("blockdev"):
        if option.properties.get("file") in names:
            names.add(option.properties.get("node-name"))
    machines = scene.command_line.group("machine")
    used = {option.properties.get(key) for option in machines for key in ("pflash0", "pflash1")}
    return "pflash" if (names & used) - {None} else "disk"


def _is_on(value: object) -> bool:
    return value in (True, "on", "yes", "true")


def _device(scene: Scene, option: Option) -> list[str] | None:
    driver = option.properties.get("driver") or ""
    items = items_of(option)
    if driver in GL_TWINS:
        now = written(option, [(k, GL_TWINS[driver] if k == "driver" else v) for k, v in items])
        scene.tell(option, now, _NO_GL)
        return now
    row = DEVICES.get(driver)
    if row is None:
        return _rom(scene, option)
    if row.driver is None:
        scene.tell(option, [], row.reason)
        return []
    new: Items = [("driver", row.driver), *((key, value) for key, value in items if key in row.keeps)]
    number = option.first
    before: list[str] = []
    if "rng" in row.needs:
        before = ["-object", f"rng-random,id=stand-in-rng{number},filename=/dev/urandom"]
        new.append(("rng", f"stand-in-rng{number}"))
    if "drive" in row.needs:
        image = scene.image(f"{driver}-{number}", format_="raw", default_bytes=DEFAULT_DISK_BYTES)
        before = ["-drive", f"if=none,id=stand-in-drive{number},format=raw,file={image}"]
        new.append(("drive", f"stand-in-drive{number}"))
    now = [*before, *written(option, new)]
    scene.tell(option, now, row.reason)
    return now


def _rom(scene: Scene, option: Option) -> list[str] | None:
    """Replace a file that a device loads: an option ROM, or what the loader device puts into memory."""
    items = items_of(option)
    for key, kind in (("romfile", "blank"), ("file", "blank")):
        source = option.properties.get(key)
        if source and "/" in source and not scene.around.is_file(str(scene.absolute(source))):
            path = scene.own_file(source, kind, 64 << 10)
            scene.tell(option, [path], "a file that is not here")
            return written(option, [(k, path if k == key else v) for k, v in items])
    return None


def _object(scene: Scene, option: Option) -> list[str] | None:
    kind = option.properties.get("qom-type") or ""
    items = items_of(option)
    get = option.properties.get
    if kind in OBJECTS_OF_THE_HOST:
        scene.tell(option, [], OBJECTS_OF_THE_HOST[kind])
        return []
    if kind in ("memory-backend-file", "memory-backend-memfd", "memory-backend-ram"):
        new = without(items, "prealloc", "host-nodes", "policy", "prealloc-context", "prealloc-threads", "hugetlb",
                      "hugetlbsize", "discard-data", "reserve", "pmem", "align")
        path = get("mem-path")
        if kind == "memory-backend-file" and path:
            new = without(new, "mem-path", "readonly")
            new = [(k, "memory-backend-ram" if k == "qom-type" else v) for k, v in new]
        if new != items:
            now = written(option, new)
            scene.tell(option, now, "memory of the same size, allocated as it is touched")
            return now
        return None
    if kind.startswith("rng-random") and get("filename") not in (None, "/dev/urandom"):
        now = written(option, [(k, "/dev/urandom" if k == "filename" else v) for k, v in items])
        scene.tell(option, now, "a host's random device")
        return now
    file = get("file")
    if kind == "secret" and file and not scene.around.is_file(str(scene.absolute(file))):
        path = scene.own_file(file, "blank", 32)
        now = written(option, [(k, path if k == "file" else v) for k, v in items])
        scene.tell(option, now, "a file that is not here")
        return now
    return None


def _chardev(scene: Scene, option: Option) -> list[str] | None:
    backend = option.properties.get("backend") or ""
    items = items_of(option)
    if _serves_a_monitor_alone(scene, option.properties.get("id")):
        scene.tell(option, [], PLUMBING["mon"])
        return []
    new = without(items, "logfile", "logappend")
    if backend in ("spicevmc", "spiceport") and not scene.command_line.group("spice"):
        return None
    if backend in CHARDEVS_OF_THE_HOST:
        new = [("backend", "null"), *((k, v) for k, v in items if k in ("id", "mux"))]
    if new == items:
        return None
    now = written(option, new)
    scene.tell(option, now, "a connection to the host")
    return now


def _serves_a_monitor_alone(scene: Scene, id_: str | None) -> bool:
    """Tell whether a character device is a monitor's and nobody else's."""
    users = [
        option.group for option in scene.command_line.options
        if option.properties.get("chardev") == id_ or option.argument == f"chardev:{id_}"
    ]
    return id_ is not None and bool(users) and set(users) <= {"mon", "qmp", "monitor", "qmp-pretty"}


def _port(scene: Scene, option: Option) -> list[str] | None:
    argument = option.argument or ""
    if argument in ("none", "null") or argument.startswith("chardev:"):
        return None
    scene.tell(option, ["null"], "a connection to the host")
    return [option.spelling, "null"]


_KEPT_OF_USER_NET = ("id", "restrict", "net", "host", "ipv4", "ipv6", "dns", "dhcpstart", "hostname", "domainname")
_NETDEVS_OF_NO_HOST = frozenset({"user", "hubport", "none", "nic"})


def _netdev(scene: Scene, option: Option) -> list[str] | None:
    kind = option.properties.get("type") or ""
    items = items_of(option)
    nic = option.group == "nic"
    if kind in ("none", "hubport"):
        return None
    if kind == "nic":
        new = without(items, "vlan", "name")
    elif kind == "user":
        new = without(items, "hostfwd", "guestfwd", "smb", "smbserver", "tftp", "bootfile", "vlan", "name")
    else:
        keys = (*_KEPT_OF_USER_NET, *(("model", "mac", "macaddr", "addr") if nic else ()))
        new = [("type", "user"), *((k, v) for k, v in items if k in keys and (nic or k == "id"))]
    if new == items:
        return None
    now = written(option, new)
    scene.tell(option, now, "a connection to the host's network")
    return now


def _shared_folder(scene: Scene, option: Option) -> list[str] | None:
    path = option.properties.get("path")
    if path is None:
        return None
    folder = scene.own_file(f"folder:{path}", "folder")
    items = [("path", folder) if key == "path" else (key, value) for key, value in items_of(option)]
    items = [("fsdriver", "local") if key == "fsdriver" else (key, value) for key, value in items]
    now = written(option, items)
    scene.tell(option, now, "a folder of the host")
    return now


def _file_option(kind: str, size_bytes: int) -> Handler:
    """Make a handler for an option whose value is a file's path."""

    def handle(scene: Scene, option: Option) -> list[str] | None:
        source = option.argument or ""
        # A bare name may be one of QEMU's own firmware files: those are left alone.
        if not source or scene.around.is_file(str(scene.absolute(source))):
            return None
        if kind == "firmware" and "/" not in source and source.startswith(("bios", "qboot", "vgabios", "edk2")):
            return None
        path = scene.own_file(source, "kernel" if kind == "kernel" else "blank", size_bytes)
        scene.tell(option, [path], "a file that is not here")
        return [option.spelling, path]

    return handle


def _file_key(key: str, size_bytes: int) -> Handler:
    """Make a handler for an option with a key that holds a file's path."""

    def handle(scene: Scene, option: Option) -> list[str] | None:
        source = option.properties.get(key)
        if not source or scene.around.is_file(str(scene.absolute(source))):
            return None
        path = scene.own_file(source, "blank", size_bytes)
        now = written(option, [(k, path if k == key else v) for k, v in items_of(option)])
        scene.tell(option, now, "a file that is not here")
        return now

    return handle


def _boot(scene: Scene, option: Option) -> list[str] | None:
    splash = option.properties.get("splash")
    if not splash or scene.around.is_file(str(scene.absolute(splash))):
        return None
    now = written(option, without(items_of(option), "splash"))
    scene.tell(option, now, "a picture that is not here")
    return now if len(now[1]) else []


def _machine(scene: Scene, option: Option) -> list[str] | None:
    items = items_of(option)
    new: Items = []
    for key, value in items:
        if key == "type":
            new.append((key, _machine_type(scene, option, value)))
        elif key == "accel" and not scene.around.kvm:
            if value != "tcg":
                scene.tell(f"accel={value}", ["tcg"], "KVM cannot be used here")
            new.append((key, "tcg"))
        elif key in _ENCRYPTION:
            scene.tell(f"{key}={value}", [], "needs a CPU that encrypts memory")
        else:
            new.append((key, value))
    return written(option, new) if new != items else None


_FAMILIES = (("q35", re.compile(r"(?:pc-)?q35")), ("pc", re.compile(r"pc(?:-|$)")), ("virt", re.compile(r"virt-")))


def _machine_type(scene: Scene, option: Option, value: str) -> str:
    plain = re.sub(r"\+pve\d+$", "", value)
    if plain != value:
        scene.tell(f"-machine {value}", [plain], "only Proxmox's QEMU knows this suffix")
    if not scene.around.machines or plain in scene.around.machines:
        return plain
    for alias, pattern in _FAMILIES:
        if pattern.match(plain) and alias in scene.around.machines:
            scene.tell(f"-machine {value}", [alias], "this QEMU does not have that version of the machine")
            return alias
    return plain


def _accel(scene: Scene, option: Option) -> list[str] | None:
    if scene.around.kvm or option.properties.get("accel") == "tcg":
        return None
    if any(other.group == "accel" and other.first < option.first for other in scene.command_line.options):
        return []
    scene.tell(option, ["tcg"], "KVM cannot be used here")
    return ["-accel", "tcg"]


def _enable_kvm(scene: Scene, option: Option) -> list[str] | None:
    if scene.around.kvm:
        return None
    scene.tell(option, [], "KVM cannot be used here")
    return []


def _cpu(scene: Scene, option: Option) -> list[str] | None:
    if scene.around.kvm:
        return None
    model, *features = split_commas(option.argument or "")
    kept = [feature for feature in features if not KVM_FEATURE.fullmatch(feature)]
    now_model = "max" if model == "host" else model
    if now_model == model and kept == features:
        return None
    now = ",".join([now_model, *kept])
    scene.tell(option, [now], "without KVM there is no host CPU and no paravirtual feature")
    return [option.spelling, now]


def _uuid(scene: Scene, option: Option) -> list[str] | None:
    value = option.argument or ""
    if not value or not scene.around.uuid_taken(value):
        return None
    scene.tell(option, [], "a domain has this UUID already")
    return []


def _smbios(scene: Scene, option: Option) -> list[str] | None:
    file, uuid = option.properties.get("file"), option.properties.get("uuid")
    if file and not scene.around.is_file(str(scene.absolute(file))):
        scene.tell(option, [], "a file that is not here")
        return []
    if uuid and scene.around.uuid_taken(uuid):
        now = written(option, without(items_of(option), "uuid"))
        scene.tell(option, now, "a domain has this UUID already")
        return now
    return None


def _display(scene: Scene, option: Option) -> list[str] | None:
    if option.argument == "none":
        return None
    scene.tell(option, ["none"], "a window on the host")
    return [option.spelling, "none"]


def _vnc(scene: Scene, option: Option) -> list[str] | None:
    if option.argument == "none":
        return None
    now = [option.spelling, f"unix:{scene.around.folder}/vnc{option.first}"]
    scene.tell(option, now, "a port of the host")
    return now


def _spice(scene: Scene, option: Option) -> list[str]:
    now = [option.spelling, f"unix=on,addr={scene.around.folder}/spice{option.first},disable-ticketing=on"]
    scene.tell(option, now, "a port of the host")
    return now


def _audiodev(scene: Scene, option: Option) -> list[str] | None:
    if option.properties.get("driver") == "none":
        return None
    kept = [(k, v) for k, v in items_of(option) if k in ("id", "model")]
    now = written(option, [("driver", "none"), *kept])
    scene.tell(option, now, "the host's sound")
    return now


def _tpmdev(scene: Scene, option: Option) -> list[str]:
    scene.tell(option, [], _TPM.reason)
    return []


def _usbdevice(scene: Scene, option: Option) -> list[str] | None:
    if not (option.argument or "").startswith(("host:", "disk:", "net:", "serial:")):
        return None
    scene.tell(option, [], "a host's USB device")
    return []


def _readconfig(scene: Scene, option: Option) -> list[str] | None:
    if scene.around.is_file(str(scene.absolute(option.argument or ""))):
        return None
    known = vendor_config(str(scene.absolute(option.argument or "")))
    if known is not None:
        now = [word for section in known for word in (f"-{section.group}", join_commas(list(section.settings)))]
        scene.tell(option, now, "a vendor's file that is not here: what it holds stands in for it")
        return now
    now = missing_buses(scene)
    scene.tell(option, now, "a file that is not here: the buses that it should have made stand in for it")
    return now


# Without KVM a CPU addresses 40 bits; the hotplug area has to fit below that.
_MOST_HOTPLUG_BYTES = 512 << 30
_SCALED_BYTES = 4 << 30


def _memory(scene: Scene, option: Option) -> list[str] | None:
    """Make memory fit: a guest that the host cannot have, or a hotplug area that the CPU cannot address."""
    items = items_of(option)
    new = []
    backed = bool(scene.command_line.group("numa")) or any(
        machine.properties.get("memory-backend") for machine in scene.command_line.group("machine")
    )
    for key, value in items:
        limit, now = {
            "size": (scene.around.memory_bytes, _SCALED_BYTES),
            "maxmem": (_MOST_HOTPLUG_BYTES, _MOST_HOTPLUG_BYTES),
        }.get(key, (None, 0))
        try:
            size = parse_size_bytes(value, default_suffix="m") if limit else 0
        except ValueError:
            return None
        scaled = limit is not None and size > limit and not (key == "size" and backed)
        new.append((key, f"{now >> 20}M" if scaled else value))
    if new == items:
        return None
    words = written(option, new)
    scene.tell(option, words, "more memory than this host, or a CPU without KVM, can have")
    return words


# Buses that devices name though nothing makes them: a -readconfig file did that. The
# name says which kind: `ehci.0` is a USB bus, `pci.2` a conventional PCI one.
_BUS_MAKERS = (
    (re.compile(r"ehci"), "ich9-usb-ehci1,id={id}"),
    (re.compile(r"uhci"), "piix3-usb-uhci,id={id}"),
    (re.compile(r".*pcie.*port.*|.*root.*port.*"), "pcie-root-port,id={id},chassis={n}"),
    (re.compile(r"pci\.\d+|pci.*"), "pci-bridge,id={id},chassis_nr={n}"),
)


def missing_buses(scene: Scene) -> list[str]:
    """Give controllers for the buses that are named and not made by any option."""
    made = {option.properties.get("id") for option in scene.command_line.group("device")}
    named: list[str] = []
    for option in scene.command_line.group("device"):
        bus = option.properties.get("bus")
        if bus and bus not in named:
            named.append(bus)
    words: list[str] = []
    slots = _free_slots(scene)
    for number, bus in enumerate(named, start=1):
        owner = bus.rsplit(".", 1)[0]
        ids = (bus, owner)
        if any(id_ in made for id_ in ids) or re.fullmatch(r"(?:pcie\.0|ide\.\d|isa\.0|usb-bus\.\d)", bus):
            continue
        for pattern, driver in _BUS_MAKERS:
            if pattern.fullmatch(owner) or pattern.fullmatch(bus):
                id_ = owner if "usb" in driver else bus
                words += ["-device", f"{driver.format(id=id_, n=number)},addr={slots.pop():#x}"]
                break
    return words


def _free_slots(scene: Scene) -> list[int]:
    """Give the slots of the first PCI bus that no option names, the highest last."""
    named = {0x1F}
    for option in scene.command_line.group("device"):
        with contextlib.suppress(ValueError):
            named.add(parse_number((option.properties.get("addr") or "").split(".")[0]))
    return [slot for slot in range(3, 0x1F) if slot not in named]


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(PLUMBING, _plumbing),
    "drive": _drive,
    "blockdev": _blockdev,
    "device": _device,
    "object": _object,
    "chardev": _chardev,
    **dict.fromkeys(("serial", "parallel", "debugcon"), _port),
    **dict.fromkeys(("netdev", "net", "nic"), _netdev),
    **dict.fromkeys(("fsdev", "virtfs"), _shared_folder),
    "m": _memory,
    "kernel": _file_option("kernel", 0),
    **dict.fromkeys(("initrd", "dtb"), _file_option("blank", MIB)),
    "bios": _file_option("firmware", 4 * MIB),
    "option-rom": _file_key("romfile", 64 << 10),
    "fw_cfg": _file_key("file", 4096),
    "boot": _boot,
    "machine": _machine,
    "accel": _accel,
    "enable-kvm": _enable_kvm,
    "cpu": _cpu,
    "uuid": _uuid,
    "smbios": _smbios,
    "display": _display,
    "vnc": _vnc,
    "spice": _spice,
    **dict.fromkeys(("audiodev", "audio"), _audiodev),
    "tpmdev": _tpmdev,
    "usbdevice": _usbdevice,
    "readconfig": _readconfig,
}
