"""Small devices that are one element each: random numbers, balloon, vsock, crypto, ACPI's error record, NVRAM."""

from __future__ import annotations

from virtsnap.convert.build import build_device
from virtsnap.convert.buses.pci import Plugged
from virtsnap.convert.buses.pci_keys import ACPI_KEYS
from virtsnap.convert.buses.virtio_keys import VIRTIO_KEYS
from virtsnap.convert.consoles.chardevs import can_have, find_chardev, put_chardev
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, read_keys, virtio
from virtsnap.convert.values import hexadecimal, number, on_off, only_if, positive, size_in


def _build_rng(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join virtio-rng with its -object: rng-random, rng-builtin (QEMU's own choice since 4.2) or rng-egd."""
    backend = draft.find(word.peek("rng"), "object")
    egd = backend is not None and backend.peek("qom-type") == "rng-egd"
    if backend is not None and egd and not can_have(draft, find_chardev(draft, backend)):
        return
    path = draft.absolute((backend.peek("filename") if backend is not None else None) or "/dev/urandom")
    word.claim("rng", Outcome.MAPPED)
    holes: dict[str, str | None] = {"backend_model": "random", "backend_path": "/dev/urandom"}
    if backend is None and draft.knows((6, 1)):
        holes = {"backend_model": "builtin"}
    if backend is not None:
        kind = backend.take("qom-type")
        backend.claim("id", Outcome.IMPLIED)
        if kind == "rng-builtin":
            holes = {"backend_model": "builtin"}
        elif kind == "rng-egd":
            holes = {"backend_model": "egd"}
        else:
            backend.claim("filename", Outcome.MAPPED)
            holes["backend_path"] = path
    element = build_device(draft, word, row, holes)
    if backend is not None:
        backend.land(element)
        inner = element.find("backend")
        if egd and inner is not None:
            put_chardev(draft, inner, backend)


def _build_vsock(draft: Draft, word: Word, row: DeviceRow) -> None:
    number(word.peek("guest-cid") or "")
    build_device(draft, word, row, {"cid_auto": "no"})


def _build_crypto(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join virtio-crypto with its cryptodev object."""
    backend = draft.find(word.peek("cryptodev"), "object")
    model = CRYPTO_BACKENDS.get((backend.peek("qom-type") or "") if backend is not None else "")
    if backend is None or model is None:
        return
    word.claim("cryptodev", Outcome.MAPPED)
    backend.claim("qom-type", Outcome.MAPPED)
    backend.claim("id", Outcome.IMPLIED)
    holes = {"backend_model": model, **read_keys(backend, CRYPTO_KEYS, draft.target)}
    backend.land(build_device(draft, word, row, holes))


def _build_pstore(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join acpi-erst with the file that holds the records."""
    memory = draft.find(word.peek("memdev"), "object")
    keys = {row.key for row in PSTORE_KEYS} | {"id"}
    if memory is None or memory.peek("qom-type") != "memory-backend-file" or any(
        item.key not in keys for item in memory.properties
    ):
        return
    path = draft.absolute(memory.peek("mem-path") or "")
    holes = read_keys(memory, PSTORE_KEYS, draft.target)
    memory.claim("id", Outcome.IMPLIED)
    word.claim("memdev", Outcome.MAPPED)
    holes["path"] = path
    memory.land(build_device(draft, word, row, holes))


def convert_balloon(draft: Draft) -> None:
    """Convert -balloon of old, and switch libvirt's balloon off where QEMU has none; call after the devices."""
    for word in draft.group("balloon"):
        kind = (word.peek("balloon") or "").split(",")[0]
        if kind == "none":
            word.claim_rest(Outcome.IMPLIED)
        elif word.peek("balloon") == "virtio" and draft.devices.find("memballoon") is None:
            word.claim_rest(Outcome.MAPPED)
            element = draft.add(draft.fill("memballoon", {"virtio_model": "virtio"}), word)
            draft.pci.add(word, element, plugged=Plugged.DEVICE)
    if draft.devices.find("memballoon") is None:
        draft.add(draft.fill("memballoon", {"virtio_model": "none"}))


def convert_nvram(draft: Draft) -> None:
    """Give the NVRAM that every pseries machine has the address that -global says."""
    for word in draft.group("global"):
        if word.peek("driver") == "spapr-nvram" and word.peek("property") == "reg":
            reg = word.take_read("value", hexadecimal(8))
            if reg is not None and draft.devices.find("nvram") is None:
                word.claim_rest(Outcome.MAPPED)
                draft.add(draft.fill("nvram", {"reg": reg}), word)


CRYPTO_BACKENDS = {"cryptodev-backend-builtin": "builtin", "cryptodev-backend-lkcf": "lkcf"}
CRYPTO_KEYS: tuple[Key, ...] = (Key(key="queues", hole="queues", read=number),)
PSTORE_KEYS: tuple[Key, ...] = (
    Key(key="qom-type", hole=None),
    Key(key="mem-path", hole="path"),
    Key(key="size", hole="size_kib", read=size_in(1024)),
    Key(key="share", hole=None, read=only_if("on")),
)

ROWS = (
    DeviceRow(
        drivers=virtio("virtio-rng"), template="rng", bus=Bus.PCI, build=_build_rng,
        keys=(
            Key(key="max-bytes", hole="rate_bytes", read=positive),
            Key(key="period", hole="rate_period", read=number, needs="rate_bytes"),
            *VIRTIO_KEYS,
            *ACPI_KEYS,
        ),
    ),
    DeviceRow(
        drivers=virtio("vhost-vsock"), template="vsock", bus=Bus.PCI, build=_build_vsock, since=(4, 4), once=True,
        keys=(
            Key(key="guest-cid", hole="cid", read=number),
            Key(key="vhostfd", hole=None, outcome=Outcome.MANAGED, note="libvirt opens /dev/vhost-vsock itself"),
            *VIRTIO_KEYS,
            *ACPI_KEYS,
        ),
    ),
    DeviceRow(
        drivers=virtio("virtio-crypto"), template="crypto", bus=Bus.PCI, build=_build_crypto, since=(9, 1),
        keys=(*VIRTIO_KEYS, *ACPI_KEYS),
    ),
    DeviceRow(
        drivers=("acpi-erst",), template="pstore", bus=Bus.PCI, build=_build_pstore, since=(10, 6), once=True,
        keys=ACPI_KEYS,
    ),
    DeviceRow(
        drivers=virtio("virtio-balloon"), template="memballoon", bus=Bus.PCI, once=True,
        keys=(
            Key(key="deflate-on-oom", hole="autodeflate", read=on_off),
            Key(key="free-page-reporting", hole="free_page_reporting", read=on_off, since=(6, 9)),
            *VIRTIO_KEYS,
            *ACPI_KEYS,
        ),
    ),
)
