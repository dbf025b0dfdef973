"""-tpmdev with its -device becomes <tpm>: a chip of the host, or an emulated one.

The emulator of a -tpmdev is a swtpm that somebody started behind a socket.
libvirt starts one of its own for the domain and keeps its state.
"""

from __future__ import annotations

from virtsnap.convert.build import build_device
from virtsnap.convert.consoles.chardevs import FDSET_PATH, Holes, claim_fdset
from virtsnap.convert.device_row import Bus, DeviceRow
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Table

HOST_CHIP = "/dev/tpm0"
CANCEL = "libvirt finds the file that cancels a command by the chip's name"
OWN_SWTPM = (
    "libvirt starts a swtpm of its own for the domain, version 2.0, with empty state;"
    " state of before lies where the swtpm behind the socket kept it"
)

PASSTHROUGH_KEYS: tuple[Key, ...] = (
    Key(key="type", hole="backend_type"),
    Key(key="path", hole="device_path"),
    Key(
        key="cancel-path", hole=None, outcome=Outcome.MANAGED,
        note=CANCEL,
    ),
)
EMULATOR_KEYS: tuple[Key, ...] = (
    Key(key="type", hole="backend_type"),
    Key(key="chardev", hole=None, outcome=Outcome.SUBSTITUTED, note=OWN_SWTPM),
)


def _build_tpm(draft: Draft, word: Word, row: DeviceRow) -> None:
    backend = draft.find(word.peek("tpmdev"), "tpmdev")
    if backend is None or backend.peek("type") not in {"passthrough", "emulator"}:
        return
    emulated = backend.peek("type") == "emulator"
    word.claim("tpmdev", Outcome.MAPPED)
    backend.claim("type", Outcome.MAPPED)
    backend.claim("id", Outcome.IMPLIED)
    holes: Holes = {"backend_type": backend.peek("type")}
    if emulated:
        # Which of the two specifications a swtpm speaks is on its own command line, not on
        # QEMU's; 2.0 is what guests of today ask for.
        holes["version"] = "2.0"
        backend.claim("chardev", Outcome.SUBSTITUTED, OWN_SWTPM)
        _claim_socket(draft, backend)
    else:
        holes["device_path"] = _chip(draft, backend)
    element = build_device(draft, word, row, holes)
    backend.land(element)


def _chip(draft: Draft, backend: Word) -> str:
    for key in ("path", "cancel-path"):
        claim_fdset(draft, backend.peek(key) or "")
    backend.claim("cancel-path", Outcome.MANAGED, CANCEL)
    path = backend.take("path") or HOST_CHIP
    if FDSET_PATH.fullmatch(path):
        backend.claim("path", Outcome.SUBSTITUTED, f"the chip came as a descriptor; {HOST_CHIP} is the usual one")
        path = HOST_CHIP
    return path


def _claim_socket(draft: Draft, backend: Word) -> None:
    socket = draft.find(backend.peek("chardev"), "chardev")
    if socket is not None:
        socket.claim_rest(Outcome.MANAGED, "libvirt's own swtpm has a socket of its own")


ROWS = (
    DeviceRow(drivers=("tpm-tis", "tpm-tis-device"), template="tpm", bus=Bus.NONE, build=_build_tpm,
              holes={"model": "tpm-tis"}, once=True),
    DeviceRow(drivers=("tpm-crb",), template="tpm", bus=Bus.NONE, build=_build_tpm, holes={"model": "tpm-crb"},
              once=True),
    DeviceRow(drivers=("tpm-spapr",), template="tpm", bus=Bus.SPAPR_VIO, build=_build_tpm,
              holes={"model": "tpm-spapr"}, once=True),
)
TABLES: tuple[Table, ...] = (
    Table(group="tpmdev", keys=PASSTHROUGH_KEYS, selector=("type", "passthrough")),
    Table(group="tpmdev", keys=EMULATOR_KEYS, selector=("type", "emulator")),
)
