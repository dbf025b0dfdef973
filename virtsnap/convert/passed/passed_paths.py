"""Relative paths in what is passed on to QEMU: libvirt starts it in another folder, so they become absolute."""

from __future__ import annotations

from collections.abc import Mapping

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Word

# The keys of each group that QEMU opens from the folder it was started in. A name
# such as romfile=, which QEMU looks up in a folder of its own, is not among them.
PATHS: Mapping[str, tuple[str, ...]] = {
    "drive": ("file",),
    "blockdev": ("filename",),
    "chardev": ("path", "logfile"),
    "fsdev": ("path",),
    "virtfs": ("path",),
    "netdev": ("smb", "tftp", "script", "downscript"),
    "nic": ("smb", "tftp", "script", "downscript"),
    "net": ("smb", "tftp", "script", "downscript"),
    "object": ("mem-path", "filename", "file"),
    "plugin": ("file",),
    "fw_cfg": ("file",),
    "smbios": ("file",),
}
# The same for devices, by driver.
DEVICE_PATHS: Mapping[str, tuple[str, ...]] = {"loader": ("file",), "guest-loader": ("kernel", "initrd")}


def absolute_paths(draft: Draft, word: Word) -> dict[str, str]:
    """Give the keys of a word that hold a relative path, with the absolute one."""
    if word.option.argument is None or word.has("abstract"):
        return {}  # a flag, or a socket whose name is no path
    keys = DEVICE_PATHS.get(word.peek("driver") or "", ()) if word.group == "device" else PATHS.get(word.group, ())
    found = {key: word.peek(key) or "" for key in keys}
    return {key: draft.in_base(path) for key, path in found.items() if _relative(path)}


def _relative(path: str) -> bool:
    # NAME:… is a protocol, as in nbd:localhost:10809; `no` is no script.
    return path not in {"", "no"} and not path.startswith("/") and ":" not in path.partition("/")[0]
