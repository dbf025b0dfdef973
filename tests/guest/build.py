"""Debian's kernel package and busybox become a bootable test guest: kernel, initramfs, ext4 disk.

Nothing here needs root, a mount or an installed kernel: apt-get downloads the
package, dpkg-deb unpacks it, the cpio archive is written here, and mke2fs fills
the file system from a folder. `python -m tests.guest.build` builds and prints
the three paths.
"""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache" / "guest"
SCRIPTS = Path(__file__).parent
BUSYBOX = Path("/bin/busybox")

# Measured under TCG, power-on to the first answer: cloud 2.3 s (its bzImage is lz4), the full
# kernel 5.4 s (xz). cloud has no AHCI, USB, e1000 or e1000e.
KERNEL_PACKAGES = {"cloud": "linux-image-cloud-amd64", "full": "linux-image-amd64"}
Kernel = Literal["cloud", "full"]

# What may be loaded; coldplug takes from these what the machine has. The first
# group is needed by others without being named as a dependency.
MODULES = (
    "crc32c_generic", "crc32c-intel", "ext4", "isofs", "efivarfs",
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "virtio-rng", "virtio_balloon", "virtio_console",
    "ata_piix", "ahci", "sd_mod", "sr_mod",
    "xhci-pci", "ehci-pci", "uhci-hcd", "usb-storage", "uas", "usbhid",
    "e1000", "e1000e", "nvme", "i6300esb",
)  # fmt: skip

DISK_SIZE = "1G"

# quiet: kernel messages only disturb. The rest saves time under TCG, where every
# boot-time calibration, self-test and mitigation is paid at a tenth of the speed.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=1 nokaslr mitigations=off no_timer_check cryptomgr.notests "
    "random.trust_cpu=on rcupdate.rcu_expedited=1"
)


@dataclass(frozen=True, kw_only=True)
class GuestFiles:
    """A built guest. `disk` is a qcow2 to be used as a backing file, never written to.

    `kernel_arguments` is what belongs into -append or <cmdline>.
    """

    kernel: Path
    initramfs: Path
    disk: Path
    kernel_arguments: str = KERNEL_ARGUMENTS


class GuestBuildError(Exception):
    """The guest cannot be built; the message says what is missing."""


def build_guest(flavour: Kernel = "cloud", *, cache: Path = CACHE) -> GuestFiles:
    """Return the guest's files, built now where the cache has none for today's inputs.

    The `cloud` kernel is the quick one; `full` drives every bus that QEMU has.

    Inputs are this folder's files and busybox; the kernel package, once fetched,
    is kept until the cache is removed. Two builds at a time wait for each other.
    """
    if not BUSYBOX.exists():
        raise GuestBuildError("/bin/busybox is missing: install busybox-static")
    cache.mkdir(parents=True, exist_ok=True)
    ready = cache / f"built-{flavour}-{_inputs_digest()}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.is_dir():
            for stale in cache.glob(f"built-{flavour}-*"):
                shutil.rmtree(stale)
            with tempfile.TemporaryDirectory(dir=cache) as work:
                made = Path(work) / "made"
                made.mkdir()
                _build_into(made, Path(work), _kernel_packages(KERNEL_PACKAGES[flavour], cache))
                made.rename(ready)
    return GuestFiles(kernel=ready / "vmlinuz", initramfs=ready / "initramfs", disk=ready / "disk.qcow2")


def _inputs_digest() -> str:
    digest = hashlib.sha256(BUSYBOX.read_bytes())
    for path in (Path(__file__), *sorted(SCRIPTS.glob("*.sh"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build_into(made: Path, work: Path, packages: Sequence[Path]) -> None:
    tree = work / "package"
    for package in packages:
        _run("dpkg-deb", "--extract", package, tree)
    places = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
    kernel = next((found for place in places for found in tree.glob(place)), None)
    if kernel is None:
        raise GuestBuildError(f"{', '.join(package.name for package in packages)}: there is no kernel in it")
    shutil.copyfile(kernel, made / "vmlinuz")
    (made / "initramfs").write_bytes(_initramfs(tree))
    _make_disk(made / "disk.qcow2", work)


# --- the kernel package ---------------------------------------------------------------------


def _kernel_packages(name: str, cache: Path) -> list[Path]:
    """Fetch what the metapackage `name` stands for, or take what was fetched before.

    Debian 12 and 13 have the kernel and its modules in one package, testing has them in two.
    """
    folder = cache / name
    complete = folder / "complete"
    if not complete.exists():
        folder.mkdir(exist_ok=True)
        failure = _download(name, folder, ())
        if failure is not None:
            # The machine's own package lists are missing or too old: use lists of our own.
            lists = cache / "apt-lists"
            (lists / "partial").mkdir(parents=True, exist_ok=True)
            own = ("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={lists}")
            update_failure = _apt_get(folder, (*own, "update"))
            second_failure = _download(name, folder, own)
            if second_failure is not None:
                why = "\n".join(filter(None, (failure, update_failure, second_failure)))
                raise GuestBuildError(f"cannot download {name}:\n{why}")
        complete.touch()
    return sorted(folder.glob("*.deb"))


def _download(name: str, folder: Path, options: tuple[str, ...]) -> str | None:
    """Download the real kernel packages into `folder`; None, or why not."""
    images, said = _depends(name, "image", options)
    if not images:
        return f"apt-cache knows no {name}: {said}"
    parts, _ = _depends(images[0], "binary|modules", options)
    return _apt_get(folder, (*options, "download", images[0], *parts))


def _depends(name: str, kinds: str, options: tuple[str, ...]) -> tuple[list[str], str]:
    """Give those packages of a kernel that a package needs, and what apt-cache said besides."""
    shown = subprocess.run(
        ["apt-cache", *options, "depends", "--important", name],
        check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return re.findall(rf"^\s+Depends: (linux-(?:{kinds})-\S+)$", shown.stdout, re.MULTILINE), shown.stderr.strip()


def _apt_get(folder: Path, words: tuple[str, ...]) -> str | None:
    # Downloading as the user `_apt` fails in a folder that only we can enter.
    sandbox = ("-o", "APT::Sandbox::User=root")
    done = subprocess.run(
        ["apt-get", "-q", *sandbox, *words],
        check=False, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return None if done.returncode == 0 else done.stderr.strip()


# --- the initramfs --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Module:
    """A kernel module: its path below /lib/modules, its code, what it needs and what it drives."""

    path: str
    code: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def _initramfs(tree: Path) -> bytes:
    modules_root = next(p for base in ("lib", "usr/lib") for p in (tree / base / "modules").glob("*"))
    modules = _modules(modules_root)
    release = modules_root.name
    base = f"lib/modules/{release}"
    files: dict[str, tuple[int, bytes]] = {
        "init": (0o755, (SCRIPTS / "init.sh").read_bytes()),
        "bin/busybox": (0o755, BUSYBOX.read_bytes()),
        "bin/sh": (0o120777, b"busybox"),
        f"{base}/modules.dep": (0o644, _modules_dep(modules).encode()),
        f"{base}/modules.alias": (0o644, _modules_alias(modules).encode()),
        f"{base}/modules.symbols": (0o644, b""),
    }
    for script in SCRIPTS.glob("*.sh"):
        if script.stem != "init":
            files[f"bin/{script.stem}"] = (0o755, script.read_bytes())
    for module in modules.values():
        files[f"{base}/{module.path}"] = (0o644, module.code)
    # Uncompressed: QEMU copies it in an instant, and the guest would unpack it under TCG.
    return write_cpio(files)


def _modules(root: Path) -> Mapping[str, Module]:
    """Read the wanted modules and all that they depend on, by their names with `_` for `-`."""
    found = {_module_name(path): path for path in root.rglob("*.ko*")}
    chosen: dict[str, Module] = {}
    wanted = [name.replace("-", "_") for name in MODULES]
    while wanted:
        name = wanted.pop()
        if name in chosen or name not in found:
            continue  # built into this kernel, or not made for it
        module = _read_module(found[name], root)
        chosen[name] = module
        wanted.extend(module.depends)
    return chosen


def _module_name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _read_module(path: Path, root: Path) -> Module:
    code = path.read_bytes()
    inside = str(path.relative_to(root))
    if path.suffix == ".xz":
        code, inside = lzma.decompress(code), inside.removesuffix(".xz")
    # .modinfo is a section of key=value strings, each ended by a NUL.
    facts = re.findall(rb"(?<=\0)(depends|softdep|alias)=([^\0]*)", code)
    depends = [word for key, value in facts if key == b"depends" for word in value.decode().split(",") if word]
    softly = [word for key, value in facts if key == b"softdep" for word in value.decode().split()]
    return Module(
        path=inside,
        code=code,
        depends=tuple(w.replace("-", "_") for w in (*depends, *softly) if not w.endswith(":")),
        aliases=tuple(value.decode() for key, value in facts if key == b"alias"),
    )


def _modules_dep(modules: Mapping[str, Module]) -> str:
    """Write modules.dep as busybox modprobe reads it: each module, and all it needs, deepest last."""
    lines = []
    for module in modules.values():
        needs = [modules[name].path for name in _all_needs(module, modules)]
        lines.append(f"{module.path}: {' '.join(needs)}".rstrip())
    return "\n".join(lines) + "\n"


def _all_needs(module: Module, modules: Mapping[str, Module]) -> Iterable[str]:
    order: list[str] = []
    ahead = list(module.depends)
    while ahead:
        name = ahead.pop(0)
        if name in modules:
            # Needed again further down: it must be loaded before all that came so far.
            if name in order:
                order.remove(name)
            order.append(name)
            ahead.extend(modules[name].depends)
    return order


def _modules_alias(modules: Mapping[str, Module]) -> str:
    return "".join(f"alias {alias} {name}\n" for name, module in modules.items() for alias in module.aliases)


def write_cpio(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Write an archive in the kernel's `newc` format.

    `files` maps a path to its mode and content (a symlink's content is its
    target); folders come by themselves, all belongs to root.
    """
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    entries = [(name, 0o040755, b"") for name in folders]
    entries += [(name, mode if mode > 0o7777 else 0o100000 | mode, data) for name, (mode, data) in files.items()]
    out = bytearray()
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


# --- the disk -------------------------------------------------------------------------------


def _make_disk(disk: Path, work: Path) -> None:
    content = work / "content"
    content.mkdir()
    (content / "hello.txt").write_text("This is the test guest's disk.\n")
    raw = work / "disk.raw"
    # Done now, so that the guest's kernel does not fill inode tables in the background of a test.
    options = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    _run("/sbin/mke2fs", "-q", "-t", "ext4", "-L", "guest", "-E", options, "-d", content, raw, DISK_SIZE)
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk)


def _run(*words: str | Path) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as exc:
        raise GuestBuildError(f"{words[0]} is missing: run `make setup`") from exc
    except subprocess.CalledProcessError as exc:
        raise GuestBuildError(f"{words[0]} failed: {exc.stderr}") from exc


if __name__ == "__main__":
    for wanted_flavour in sys.argv[1:] or ["cloud"]:
        assert wanted_flavour in get_args(Kernel), f"no such kernel: {wanted_flavour}"
        built = build_guest(cast(Kernel, wanted_flavour))
        print(built.kernel, built.initramfs, built.disk, sep="\n")
