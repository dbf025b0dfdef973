"""Small virtio and platform devices that are one element each: rng, balloon."""

from __future__ import annotations

from virtsnap.convert.build import build_device
from virtsnap.convert.chardevs import can_have, find_chardev, put_chardev
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Bus, DeviceRow, Key, virtio
from virtsnap.convert.values import on_off
from virtsnap.convert.virtio_keys import VIRTIO_KEYS


def _build_rng(draft: Draft, word: Word, row: DeviceRow) -> None:
    """Join virtio-rng with its -object: rng-random, rng-builtin or rng-egd."""
    backend = draft.find(word.peek("rng"), "object")
    egd = backend is not None and backend.peek("qom-type") == "rng-egd"
    if backend is not None and egd and not can_have(draft, find_chardev(draft, backend)):
        return
    word.claim("rng", Outcome.MAPPED)
    holes: dict[str, str | None] = {"backend_model": "random", "backend_path": "/dev/urandom"}
    if backend is not None:
        kind = backend.take("qom-type")
        backend.claim("id", Outcome.IMPLIED)
        if kind == "rng-builtin":
            holes = {"backend_model": "builtin"}
        elif kind == "rng-egd":
            holes = {"backend_model": "egd"}
        else:
            holes["backend_path"] = backend.take("filename") or "/dev/urandom"
    element = build_device(draft, word, row, holes)
    if backend is not None:
        backend.land(element)
        inner = element.find("backend")
        if egd and inner is not None:
            put_chardev(draft, inner, backend)


ROWS = (
    DeviceRow(
        drivers=virtio("virtio-rng"), template="rng", bus=Bus.PCI, build=_build_rng,
        keys=(Key(key="max-bytes", hole="rate_bytes"), Key(key="period", hole="rate_period"), *VIRTIO_KEYS),
    ),
    DeviceRow(
        drivers=virtio("virtio-balloon"), template="memballoon", bus=Bus.PCI, once=True,
        keys=(
            Key(key="deflate-on-oom", hole="autodeflate", read=on_off),
            Key(key="free-page-reporting", hole="free_page_reporting", read=on_off, since=(6, 9)),
            *VIRTIO_KEYS,
        ),
    ),
)
