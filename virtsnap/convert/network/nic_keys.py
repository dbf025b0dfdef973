"""The tables of network cards: which drivers there are, and the keys of each."""

from __future__ import annotations

import re

from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS
from virtsnap.convert.head.boot_order import LOADPARM, boot_order
from virtsnap.convert.ledger import NotSayable
from virtsnap.convert.rows import Key
from virtsnap.convert.values import hexadecimal, is_digits, number, on_off

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}")


def mac_address(value: str) -> str:
    """Give a MAC address as libvirt writes it, with colons and in lower case."""
    if not _MAC.fullmatch(value):
        raise NotSayable(f"{value!r} is not a MAC address")
    # libvirt refuses a multicast address for a guest's card; QEMU does not look.
    if int(value[:2], 16) & 1:
        raise NotSayable(f"{value} is a multicast address, which libvirt refuses")
    return value.replace("-", ":").lower()


def _queue_size(value: str) -> str:
    size = number(value)
    if not is_digits(size) or not 1 <= int(size) <= 65535:
        raise NotSayable(f"{value} is no size of a queue")
    return size


def _tx(value: str) -> str:
    if value not in {"bh", "timer"}:
        raise NotSayable(f"libvirt has no word for tx={value}")
    return "iothread" if value == "bh" else "timer"


def _mtu(value: str) -> str:
    size = number(value)
    if not is_digits(size) or int(size) > 65535:
        raise NotSayable(f"{value} is no MTU")
    return size


# Keys of any card.
NIC_KEYS: tuple[Key, ...] = (
    Key(key="mac", hole="mac", read=mac_address),
    Key(key="bootindex", hole="boot_order", read=boot_order),
    LOADPARM,
)

# An ISA card says port and interrupt; without them libvirt would put it on PCI.
ISA_KEYS: tuple[Key, ...] = (
    Key(key="iobase", hole="iobase", read=hexadecimal(3, 0xFFFF)),
    Key(key="irq", hole="irq", read=hexadecimal(1)),
)
# Where -net puts the first, the second … ISA card; -device takes the first of them.
# Source: ne2000_io and ne2000_irq in QEMU's hw/i386/pc.c, isa_ne2000_properties in its hw/net/ne2000-isa.c.
ISA_PORTS: tuple[tuple[str, str], ...] = (
    ("0x300", "0x9"), ("0x320", "0xa"), ("0x340", "0xb"), ("0x360", "0x3"), ("0x280", "0x4"), ("0x380", "0x5"),
)

_OFFLOADS = ("csum", "tso4", "tso6", "ecn", "ufo")

VIRTIO_NET_KEYS: tuple[Key, ...] = (
    Key(key="tx", hole="txmode", read=_tx),
    Key(key="ioeventfd", hole="ioeventfd", read=on_off),
    Key(key="event_idx", hole="event_idx", read=on_off),
    Key(key="rx_queue_size", hole="rx_queue_size", read=_queue_size),
    Key(key="tx_queue_size", hole="tx_queue_size", read=_queue_size, since=(3, 7)),
    Key(key="host_mtu", hole="mtu", read=_mtu),
    Key(key="rss", hole="rss", read=on_off, since=(8, 3)),
    Key(key="hash", hole="rss_hash_report", read=on_off, since=(8, 3)),
    Key(key="failover", hole="teaming", read=lambda value: "persistent" if on_off(value) == "on" else None),
    Key(key="csum", hole="host_csum", read=on_off),
    Key(key="gso", hole="host_gso", read=on_off),
    Key(key="mrg_rxbuf", hole="host_mrg_rxbuf", read=on_off),
    *(Key(key=f"host_{name}", hole=f"host_{name}", read=on_off) for name in _OFFLOADS[1:]),
    *(Key(key=f"guest_{name}", hole=f"guest_{name}", read=on_off) for name in _OFFLOADS),
    *VIRTIO_KEYS,
)

# Cards on PCI other than virtio; libvirt hands any model's name on to QEMU.
PCI_MODELS = (
    "e1000", "e1000-82544gc", "e1000-82545em", "e1000e", "igb", "rtl8139", "ne2k_pci", "pcnet", "vmxnet3", "tulip",
    "i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a", "i82558b", "i82559a", "i82559b", "i82559c",
    "i82559er", "i82562", "i82801", "sungem", "rocker",
)
ISA_MODELS = ("ne2k_isa",)
USB_MODELS = ("usb-net",)
SPAPR_MODELS = ("spapr-vlan",)
