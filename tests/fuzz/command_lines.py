"""Command lines for fuzzing: QEMU's grammar with every driver and key of the tables, and values of all sorts."""

from __future__ import annotations

from hypothesis import strategies as st

from virtsnap.command_line.option_table import OPTIONS, Syntax
from virtsnap.convert.devices import device_rows, tables

EMULATORS = (
    "qemu-system-x86_64", "/usr/bin/qemu-system-x86_64", "kvm", "qemu-system-aarch64", "qemu-system-s390x",
    "qemu-system-ppc64", "qemu-system-riscv64", "qemu-system-arm", "qemu-system-i386", "qemu",
)
MACHINES = (
    "pc", "q35", "microvm", "virt", "pseries", "s390-ccw-virtio", "isapc", "none", "pc-i440fx-7.2",
    "xenfv", "raspi3b",
)

IDS = ("a", "b", "d0", "net0", "scsi0", "usb", "pci.1", "serial0", "ram")
VALUES = (
    "", "on", "off", "auto", "0", "1", "-1", "2", "7", "16", "0x10", "0x1d.0x7", "1.0", "1.5",
    "99999999999999999999", "512M", "1G", "1.5G", "12Q", "/x", "/x.qcow2", "x.img",
    "../../etc/passwd", "a,b", "a=b", "a b", "{name}", "<x/>", "&amp;", "'", '"', "\x01", "\t",
    "\n", "\r", "¹", "٣", "é", "\ud800", "😀", "x" * 300, "52:54:00:12:34:56", "zz:zz", "host", "tcp::1-:2",
    "unix:/s,server", "127.0.0.1:0", "::1", "stdio", "none", "null", "nbd:h:1", "json:{}",
    "fe.0.0001", "0000:01:00.0", "0f3c4a5e-0000-4000-8000-000000000001", "%s", "..", ".", "-",
    "--", "pcie.0", "pci.0", "a.0", "usb.0", "scsi0.0", "writeback", "unmap", "threads", "qcow2",
    "raw", "file", "user", "tap", "cdrom", "disk", "ide", "virtio", "scsi",
)
COMMON_KEYS = (
    "id", "bus", "addr", "drive", "netdev", "chardev", "serial", "bootindex", "multifunction",
    "name", "port", "mac", "file", "if", "index", "unit", "media", "format", "cache", "size",
    "server", "wait", "path", "node-name", "filename",
)

value = st.sampled_from(VALUES) | st.sampled_from(IDS) | st.text(max_size=12)


def _escaped(text: str) -> str:
    return text.replace(",", ",,")


@st.composite
def keyval(draw: st.DrawFn, first: str | None, keys: tuple[str, ...]) -> str:
    """Draw `first,key=value,…`."""
    words = [] if first is None else [first]
    for key in draw(st.lists(st.sampled_from(keys) if keys else st.just("x"), max_size=6)):
        words.append(f"{key}={_escaped(draw(value))}")
    return ",".join(words)


def _keys_of_groups() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for table in tables():
        found.setdefault(table.group, []).extend(key.key for key in table.keys)
    return {group: tuple(keys) + COMMON_KEYS for group, keys in found.items()}


@st.composite
def device(draw: st.DrawFn) -> list[str]:
    """Draw a -device of a driver that the tables know, with keys of its row and of others."""
    driver = draw(st.sampled_from(sorted(device_rows())))
    keys = tuple(key.key for key in device_rows()[driver].keys) + COMMON_KEYS
    return ["-device", draw(keyval(driver, keys))]


@st.composite
def backend(draw: st.DrawFn) -> list[str]:
    """Draw one of the options that define an id, so that references sometimes meet."""
    id_ = draw(st.sampled_from(IDS))
    return draw(st.sampled_from((
        ["-drive", f"if=none,file=/x.qcow2,format=qcow2,id={id_}"],
        ["-blockdev", f"driver=file,filename=/x,node-name={id_}"],
        ["-netdev", f"user,id={id_}"],
        ["-chardev", f"socket,id={id_},path=/s,server=on,wait=off"],
        ["-object", f"memory-backend-ram,id={id_},size=64M"],
        ["-object", f"rng-random,id={id_},filename=/dev/urandom"],
        ["-audiodev", f"none,id={id_}"],
    )))


@st.composite
def any_option(draw: st.DrawFn) -> list[str]:
    """Draw any option of the table with an argument of its kind or of none."""
    name = draw(st.sampled_from(sorted(OPTIONS)))
    row = OPTIONS[name]
    if row.syntax is Syntax.FLAG:
        return [f"-{name}"]
    if row.syntax is Syntax.KEYVAL and draw(st.booleans()):
        keys = _keys_of_groups().get(row.group, COMMON_KEYS)
        return [f"-{name}", draw(keyval(draw(value), keys))]
    return [f"-{name}", draw(value)]


@st.composite
def command_line(draw: st.DrawFn) -> list[str]:
    """Draw a whole argv."""
    words = [draw(st.sampled_from(EMULATORS))]
    if draw(st.booleans()):
        words += ["-M", draw(st.sampled_from(MACHINES))]
    if draw(st.booleans()):
        words.append("-nodefaults")
    for option in draw(st.lists(device() | backend() | any_option(), max_size=8)):
        words += option
    return words


@st.composite
def config_file(draw: st.DrawFn) -> str:
    """Draw the text of a file for -readconfig."""
    lines = []
    for name in draw(st.lists(st.sampled_from(["device", "memory", "smp-opts", *sorted(OPTIONS)]), max_size=5)):
        head = draw(st.sampled_from((f"[{name}]", *(f'[{name} "{id_}"]' for id_ in IDS))))
        keys = _keys_of_groups().get(name, COMMON_KEYS)
        if name == "device":
            driver = draw(st.sampled_from(sorted(device_rows())))
            keys = tuple(key.key for key in device_rows()[driver].keys) + COMMON_KEYS
            head += f'\n driver = "{driver}"'
        said = draw(st.lists(st.tuples(st.sampled_from(keys), value), max_size=5))
        lines += [head, *(f' {key} = "{text}"' for key, text in said)]
    return "\n".join(lines)
