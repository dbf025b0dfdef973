"""How a disk is cached, read and written: QEMU's switches in several layers become single words of <driver>."""

from __future__ import annotations

from collections.abc import Mapping

from virtsnap.convert.claims import Options
from virtsnap.convert.ledger import NotSayable, Outcome
from virtsnap.convert.rows import Version
from virtsnap.convert.storage.block_graph import Backend
from virtsnap.convert.values import TRUE_WORDS, on_off, parse_switch, size_in

Holes = dict[str, str | None]

# (cache.direct, cache.no-flush, write cache of the device) -> libvirt's word.
# Source: bdrv_parse_cache_mode() in QEMU's block.c, qemuDomainDiskCachemodeFlags() in libvirt's qemu_domain.c.
CACHE_MODES: Mapping[tuple[bool, bool, bool], str] = {
    (True, False, True): "none",
    (True, False, False): "directsync",
    (False, False, True): "writeback",
    (False, False, False): "writethrough",
    (False, True, True): "unsafe",
}
# -drive cache=…: libvirt's words, but for `off`.
CACHE_WORDS: Mapping[str, str] = {mode: mode for mode in CACHE_MODES.values()} | {"off": "none"}

DETECT_ZEROES = frozenset({"off", "on", "unmap"})
IO_MODES = frozenset({"native", "threads", "io_uring"})


# discard_no_unref came with libvirt 9.5.
NO_UNREF_SINCE: Version = (9, 5)


def read_modes(backend: Backend | None, device: Options, target: Version) -> Holes:
    """Read cache, io, discard, detect_zeroes, copy_on_read and read-only; `device` are the frontend's keys."""
    if backend is None or backend.empty:
        device.take("write-cache", Outcome.IMPLIED)
        return {}
    holes = _cache(backend, device)
    holes["io"] = _one_of(backend.take("aio"), IO_MODES, "aio")
    holes["detect_zeroes"] = _one_of(backend.take("detect-zeroes"), DETECT_ZEROES, "detect-zeroes")
    holes |= _discard(backend)
    if any(options.get("driver") == "copy-on-read" for options in backend.filters):
        holes["copy_on_read"] = "on"
    if backend.drive is not None and backend.top.has("copy-on-read"):
        holes["copy_on_read"] = on_off(backend.top.take("copy-on-read") or "")
    format_ = backend.format_options
    if format_ is not None and backend.format == "qcow2":
        holes |= _qcow2(format_, target)
    read_only = [layer.take_any("read-only", "readonly") for layer in backend.layers]
    backend.take("auto-read-only", outcome=Outcome.IMPLIED)
    backend.take("node-name", outcome=Outcome.IMPLIED)
    if any(value is not None and value.lower() in TRUE_WORDS for value in read_only):
        holes["readonly"] = ""
    return holes


def _cache(backend: Backend, device: Options) -> Holes:
    write_cache = device.take("write-cache")
    write_back = write_cache is None or write_cache.lower() not in {"off", "false", "no"}
    word = backend.top.take("cache") if backend.drive is not None else None
    if word is not None:
        if word not in CACHE_WORDS:
            raise NotSayable(f"the cache mode {word} is unknown")
        mode = CACHE_WORDS[word]
        direct, no_flush, mode_back = next(key for key, value in CACHE_MODES.items() if value == mode)
        write_back = mode_back if write_cache is None else write_back
    elif not any(backend.get(f"cache.{key}") is not None for key in ("direct", "no-flush", "writeback")):
        return {} if write_back else {"cache": "writethrough"}
    else:
        direct = no_flush = False
        back = backend.take("cache.writeback")
        if back is not None and write_cache is None:
            write_back = _is_on(back)
    direct = _any_on(backend, "cache.direct", default=direct)
    no_flush = _any_on(backend, "cache.no-flush", default=no_flush)
    mode_ = CACHE_MODES.get((direct, no_flush, write_back))
    if mode_ is None:
        # no-flush leaves nothing of O_DIRECT's or of a missing write cache's promise
        mode_ = "unsafe"
    return {"cache": mode_}


def _any_on(backend: Backend, key: str, *, default: bool) -> bool:
    found = [layer.take(key) for layer in backend.layers]
    said = [_is_on(value) for value in found if value is not None]
    return any(said) if said else default


def _is_on(value: str) -> bool:
    try:
        return parse_switch(value)
    except ValueError as exc:
        raise NotSayable(str(exc)) from exc


def _discard(backend: Backend) -> Holes:
    """Take the topmost layer's word; below a format libvirt sets unmap by itself."""
    values = [layer.take("discard") for layer in backend.layers]
    named = [layer for layer in backend.layers if layer not in backend.filters]
    top = next((value for layer, value in zip(backend.layers, values, strict=True) if layer is named[0]), None)
    if top is None:
        return {}
    if top in {"unmap", "on"}:
        return {"discard": "unmap"}
    if top in {"ignore", "off"}:
        return {"discard": "ignore"}
    raise NotSayable(f"discard={top} is unknown")


def _qcow2(options: Options, target: Version) -> Holes:
    holes: Holes = {}
    if options.has("discard-no-unref") and target >= NO_UNREF_SINCE:
        holes["discard_no_unref"] = on_off(options.take("discard-no-unref") or "")
    size = options.get("cache-size")
    if size is not None:
        holes |= {"metadata_cache": size_in(1)(options.take("cache-size") or ""), "metadata_cache_unit": "bytes"}
    return holes


def _one_of(value: str | None, words: frozenset[str], key: str) -> str | None:
    if value is not None and value not in words:
        raise NotSayable(f"{key}={value} is unknown")
    return value


def read_policies(backend: Backend | None, device: Options) -> Holes:
    """Read what happens at an error: werror and rerror, of the device or the -drive.

    libvirt gives rerror the value of werror where only that is said
    (qemuBuildDiskGetErrorPolicy() in its qemu_command.c), QEMU does not.
    """
    places = [device] + ([backend.top] if backend is not None and backend.drive is not None else [])
    write = next((v for v in [place.take("werror") for place in places] if v is not None), None)
    read = next((v for v in [place.take("rerror") for place in places] if v is not None), None)
    write = None if write == "auto" else write
    read = None if read == "auto" else read
    if write not in {None, "stop", "report", "ignore", "enospc"} or read not in {None, "stop", "report", "ignore"}:
        raise NotSayable("an error policy that is unknown")
    holes: Holes = {"error_policy": "enospace" if write == "enospc" else write}
    if write in {None, "enospc"}:
        holes["rerror_policy"] = read
    elif (read or "report") != write:
        holes["rerror_policy"] = read or "report"
    return holes
