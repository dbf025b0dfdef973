"""Every option of QEMU: one row each, saying whether it takes an argument and how that is read.

Source: QEMU's qemu-options.def, 2.0 to 11, options since removed included,
because old command lines still name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Syntax(Enum):
    """How an option's argument is written."""

    FLAG = "takes no argument"
    TEXT = "one text, as it stands"
    KEYVAL = "key=value,… or JSON"
    CPU = "model,+feature,-feature,key=value"
    CHARDEV = "a character device in the short notation: stdio, unix:PATH, tcp:…, chardev:ID"
    GLOBAL = "driver.property=value, or key=value"
    SET = "group.id.arg=value"


@dataclass(frozen=True, kw_only=True)
class OptionRow:
    """One option.

    `group` is the name under which the rest of the program finds it, where
    that differs from the option's own (`-M` is machine, `-hda` is drive).
    `implied_key` is the key of a first word without `=`. `extra` holds the
    properties that the spelling itself stands for.
    """

    name: str
    syntax: Syntax
    group: str
    implied_key: str | None = None
    extra: tuple[tuple[str, str], ...] = ()


def _rows() -> Mapping[str, OptionRow]:
    rows: dict[str, OptionRow] = {}

    def add(names: str, syntax: Syntax, *, group: str | None = None, implied: str | None = None,
            extra: Mapping[str, str] | None = None) -> None:
        for name in names.split():
            rows[name] = OptionRow(
                name=name, syntax=syntax, group=group or name, implied_key=implied,
                extra=tuple((extra or {}).items()),
            )

    keyval, text, flag, chardev = Syntax.KEYVAL, Syntax.TEXT, Syntax.FLAG, Syntax.CHARDEV
    # machine and boot
    add("machine M", keyval, group="machine", implied="type")
    add("accel", keyval, implied="accel")
    add("cpu", Syntax.CPU)
    add("smp", keyval, implied="cpus")
    add("numa", keyval, implied="type")
    add("m", keyval, implied="size")
    add("memory", keyval, group="m", implied="size")
    add("name", keyval, implied="guest")
    add("boot", keyval, implied="order")
    add("uuid k L pidfile append kernel initrd shim dtb bios mem-path incoming loadvm D d dfilter seed", text)
    add("option-rom", keyval, implied="romfile")
    add("enable-kvm no-acpi no-hpet no-reboot no-shutdown nodefaults no-user-config nodefconfig", flag)
    add("S snapshot daemonize nographic usb only-migratable mem-prealloc s singlestep preconfig", flag)
    add("enable-hax enable-fips no-kvm no-kvm-irqchip no-kvm-pit no-kvm-pit-reinjection kvm no-fd-bootchk", flag)
    add("win2k-hack rtc-td-hack localtime startdate full-screen no-frame alt-grab ctrl-grab", flag)
    add("no-quit sdl curses", flag)
    add("show-cursor portrait semihosting old-param xen-attach xen-create xen-domid-restrict audio-help", flag)
    add("h help version", flag)
    add("startdate rotate g prom-env xen-domid chroot runas runas-user echr vnc-password watchdog", text)
    add("watchdog-action icount-shift virtioconsole balloon soundhw bt tb-size", text)
    add("clock clients smb bootp tftp redir", text)
    add("readconfig writeconfig qtest qtest-log gdb-server osk", text)
    add("global", Syntax.GLOBAL)
    add("set", Syntax.SET)
    add("rtc overcommit realtime msg compat iscsi acpitable smbios add-fd", keyval)
    add("run-with action trace", keyval)
    add("icount", keyval, implied="shift")
    add("semihosting-config", keyval, implied="enable")
    add("sandbox", keyval, implied="enable")
    add("plugin", keyval, implied="file")
    add("fw_cfg", keyval, implied="name")
    add("tb-jmp-cache", text)
    add("machine-prop", keyval)
    # devices and their backends
    add("device", keyval, implied="driver")
    add("object", keyval, implied="qom-type")
    add("drive", keyval)
    add("blockdev", keyval, implied="driver")
    for name, index in (("hda", "0"), ("hdb", "1"), ("hdc", "2"), ("hdd", "3")):
        add(name, text, group="drive", implied="file", extra={"index": index, "media": "disk"})
    add("cdrom", text, group="drive", implied="file", extra={"index": "2", "media": "cdrom"})
    add("fda", text, group="drive", implied="file", extra={"if": "floppy", "index": "0"})
    add("fdb", text, group="drive", implied="file", extra={"if": "floppy", "index": "1"})
    add("mtdblock", text, group="drive", implied="file", extra={"if": "mtd"})
    add("sd", text, group="drive", implied="file", extra={"if": "sd"})
    add("pflash", text, group="drive", implied="file", extra={"if": "pflash"})
    add("netdev net", keyval, implied="type")
    add("nic", keyval, implied="type")
    add("chardev", keyval, implied="backend")
    add("fsdev virtfs", keyval, implied="fsdriver")
    add("virtfs_synth", flag)
    add("tpmdev", keyval, implied="type")
    add("audiodev", keyval, implied="driver")
    add("audio", keyval, implied="driver")
    add("usbdevice", text)
    # consoles and displays
    add("serial parallel monitor qmp qmp-pretty debugcon gdb", chardev)
    add("mon", keyval, implied="chardev")
    add("display", keyval, implied="type")
    add("vnc", keyval, implied="vnc")
    add("spice", keyval)
    add("vga", text)
    add("nouserconfig", flag)
    return rows


OPTIONS: Mapping[str, OptionRow] = _rows()
