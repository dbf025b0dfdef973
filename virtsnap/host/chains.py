"""A disk's top file becomes its chain of backing files, each with what a look at it tells."""

from __future__ import annotations

from pathlib import PurePosixPath

from virtsnap.errors import HypervisorError, UnsupportedError
from virtsnap.host.files import HypervisorFiles, Layer
from virtsnap.host.qcow2 import read_qcow2_header

_MAX_LAYERS = 1000


def read_chain(files: HypervisorFiles, path: str, format_: str | None) -> tuple[Layer, ...]:
    """Follow a disk's backing files from the top down to the last.

    `format_` is the top's, as the domain says it. On failure: HypervisorError
    for a layer that is missing, damaged or cannot be read; UnsupportedError
    for one that virtsnap cannot follow.
    """
    layers: list[Layer] = []
    seen: set[str] = set()
    where, kind = path, format_
    above = ""
    while True:
        facts = files.facts_of(where)
        if facts is None:
            raise HypervisorError(f"{where}: no such file{above}")
        if where in seen or len(layers) >= _MAX_LAYERS:
            raise HypervisorError(f"{where}: its chain of backing files has no end")
        seen.add(where)
        header = None if kind == "raw" else read_qcow2_header(files, where)
        if kind == "qcow2" and header is None:
            raise HypervisorError(f"{where}: is not qcow2{above}")
        if kind not in (None, "raw", "qcow2"):
            raise UnsupportedError(f"{where}: format {kind} cannot be kept in a snapshot; raw and qcow2 can")
        if header is not None and header.is_corrupt:
            raise HypervisorError(f"{where}: qcow2 marks itself corrupt")
        layers.append(Layer(
            path=where, format="raw" if header is None else "qcow2", size_bytes=facts.size_bytes,
            mtime_ns=facts.mtime_ns, virtual_bytes=facts.size_bytes if header is None else header.virtual_bytes,
        ))
        if header is None or header.backing_path is None:
            return tuple(layers)
        above = f" (the backing file of {where})"
        where = str(PurePosixPath(where).parent / header.backing_path)
        kind = header.backing_format
