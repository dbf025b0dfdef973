"""Configuration files that a vendor installs for its own use: what they make, for hosts that do not have them.

Proxmox VE starts each Q35 machine, and each one with USB, by a file of its own. A domain that
named the file would start on Proxmox VE alone; the devices in it are written out instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from virtsnap.command_line.config_file import Section

FOLDER = "/usr/share/qemu-server/"
ROOT = "pcie.0"


def _device(id_: str, driver: str, **settings: str) -> Section:
    return Section(group="device", settings=(("id", id_), ("driver", driver), *settings.items()))


def _ich9_usb(ehci: str, number: int, slot: str, bus: Mapping[str, str]) -> Iterator[Section]:
    """Make one of the ICH9's two USB 2 controllers: EHCI with its three UHCI companions."""
    yield _device(ehci, f"ich9-usb-ehci{number}", addr=f"{slot}.7", multifunction="on", **bus)
    for part in range(3):
        uhci = 3 * (number - 1) + part + 1
        yield _device(
            f"uhci-{uhci}", f"ich9-usb-uhci{uhci}", addr=f"{slot}.{part}", multifunction="on",
            masterbus=f"{ehci}.0", firstport=str(2 * part), **bus,
        )


def _q35(port: str, bridges: int, **of_port: str) -> tuple[Section, ...]:
    """Make the ICH9's usual functions, four ports, and the bridges for conventional devices."""
    root = {"bus": ROOT}
    ports = [
        _device(f"ich9-pcie-port-{n}", port, addr=f"1c.{n - 1}", multifunction="on", port=str(n), chassis=str(n),
                **of_port, **root)
        for n in range(1, 5)
    ]
    behind = [
        _device(f"pci.{n}", "pci-bridge", bus="pcidmi", addr=f"{n + 1}.0", chassis_nr=str(n + 1))
        for n in range(bridges)
    ]
    return (
        *_ich9_usb("ehci", 1, "1d", root),
        *_ich9_usb("ehci-2", 2, "1a", root),
        _device("audio0", "ich9-intel-hda", addr="1b.0", **root),
        *ports,
        _device("pcidmi", "i82801b11-bridge", addr="1e.0", **root),
        *behind,
    )


CONFIGS: Mapping[str, tuple[Section, ...]] = {
    FOLDER + "pve-usb.cfg": tuple(_ich9_usb("ehci", 1, "1d", {})),
    FOLDER + "pve-q35.cfg": _q35("ioh3420", 3),
    FOLDER + "pve-q35-4.0.cfg": _q35("pcie-root-port", 4, **{"x-speed": "16", "x-width": "32"}),
}


def vendor_config(path: str) -> tuple[Section, ...] | None:
    """Give what a vendor's file holds, None for a file that is no known one."""
    return CONFIGS.get(path)
