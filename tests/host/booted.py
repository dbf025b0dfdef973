"""One boot becomes any number of running guests: its memory and disk are kept, and put under other names.

Under TCG a boot costs seven seconds of CPU, and waking up a copy one. The kept
memory is an image of `virsh save` (`virtsnap.host.memory_image` has the layout):
in front of QEMU's stream, which knows nothing of names and paths, stands the
definition, and each copy gets one of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import struct
import subprocess
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxml import etree

from tests.guest.build import CHECKOUT
from virtsnap.domain_xml.live import parse_xml
from virtsnap.domain_xml.quick_start import start_quickly

CACHE = CHECKOUT / ".cache" / "host"
_HEADER = struct.Struct("<16s5I56x")
# virDomainSaveFlags: the guest runs after a restore
_SAVE_RUNNING = 2


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A guest that was saved right after its boot. `names` are the words to replace in its definition."""

    memory: Path
    disk: Path
    names: Mapping[str, str]


class Booted:
    """Keeps one guest for each shape of domain, in .cache, for as long as machine, QEMU and libvirt are the same.

    `context` is whatever a kept guest depends on beside its definition.
    """

    def __init__(self, context: str, *, cache: Path = CACHE) -> None:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
        self._prefix = f"booted-{_digest(context + boot_id)}-"
        self._cache = cache

    def kept(self, shape: str, *, names: Mapping[str, str], disk: Path, boot: Callable[[], Any]) -> Kept:
        """Give the kept guest of the shape, booted now by `boot` if it is the first.

        `names` are what distinguishes this domain from others of its shape; `boot` starts it on `disk` and
        gives the virDomain once it answers. It is saved, and so shut off again.
        """
        for kind, word in names.items():
            shape = shape.replace(word, f"@{kind}@")
        folder = self._cache / (self._prefix + _digest(shape))
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / "booted.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                for stale in self._cache.glob("booted-*"):
                    if not stale.name.startswith(self._prefix):
                        shutil.rmtree(stale)
                making = self._cache / "making-booted"
                shutil.rmtree(making, ignore_errors=True)
                making.mkdir()
                image = disk.with_name("booted.mem")
                boot().saveFlags(str(image), None, _SAVE_RUNNING)
                shutil.copy(image, making / "memory")
                image.unlink()
                shutil.copy(disk, making / "disk")
                (making / "names").write_text(json.dumps(dict(names)))
                making.rename(folder)
        kept_names = json.loads((folder / "names").read_text())
        return Kept(memory=folder / "memory", disk=folder / "disk", names=kept_names)


def wake(connection: Any, kept: Kept, xml: str, *, names: Mapping[str, str], disk: Path) -> Any:
    """Start a copy of a kept guest, and define it as `xml`; return the virDomain.

    `disk` is an overlay over the guest's base that exists; it gets what the kept one holds.
    """
    base = json.loads(subprocess.run(
        ["qemu-img", "info", "--output=json", disk], check=True, capture_output=True, stdin=subprocess.DEVNULL,
    ).stdout)["backing-filename"]
    with disk.open("r+b") as target, kept.disk.open("rb") as source:
        target.truncate(0)
        shutil.copyfileobj(source, target)
    subprocess.run(
        ["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", base, "-F", "qcow2", disk],
        check=True, stdin=subprocess.DEVNULL,
    )
    image = disk.with_name("booted.mem")
    identity = str(uuid.uuid4())
    with kept.memory.open("rb") as source, image.open("wb") as target:
        magic, version, data_bytes, running, compressed, cookie_at = _HEADER.unpack(source.read(_HEADER.size))
        data = source.read(data_bytes)
        definition = data[: data.index(b"\0")].decode()
        cookie = data[cookie_at:] if cookie_at else b""
        for kind, word in kept.names.items():
            definition = definition.replace(word, names[kind])
        # Each test starts QEMU so, some several times: what libvirt asks it costs more than the guest's waking.
        awake = parse_xml(_with_uuid(definition, identity).decode())
        start_quickly(awake)
        text = etree.tostring(awake) + b"\0"
        header = _HEADER.pack(
            magic, version, len(text) + len(cookie), running, compressed, len(text) if cookie else 0
        )
        target.write(header + text + cookie)
        shutil.copyfileobj(source, target, 1 << 20)
    try:
        connection.restore(str(image))
    finally:
        image.unlink()
    return connection.defineXML(_with_uuid(xml, identity).decode())


def _with_uuid(xml: str, identity: str) -> bytes:
    root = etree.fromstring(xml.encode())
    found = root.find("uuid")
    if found is None:
        found = etree.SubElement(root, "uuid")
    found.text = identity
    return etree.tostring(root)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
