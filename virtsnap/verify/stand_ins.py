"""A command line becomes one that can be started here: what is missing on this host is replaced.

Images, firmware, taps, sockets and host devices become stand-ins of the same
size and kind; options that this QEMU cannot know are taken out. The rewritten
argv is then started *and* converted, so both sides stand on the same stand-ins.
Nothing here touches the host: `Rewritten.files` says what has to be made, and
every replacement is listed with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from virtsnap.command_line.keyval import join_commas
from virtsnap.command_line.options import CommandLine, Option, parse_options

MIB = 1 << 20
DEFAULT_DISK_BYTES = 10 << 30
DEFAULT_CDROM_BYTES = 700 * MIB
FLOPPY_BYTES = 1440 << 10
# OVMF's 4 MiB build: code and variables; QEMU wants multiples of 4 KiB and 8 MiB at most together.
PFLASH_CODE_BYTES = 3653632
PFLASH_VARS_BYTES = 540672

Items = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """One replacement: the words as they stood, what stands there now (empty: nothing), and why."""

    was: str
    now: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StandInFile:
    """A file or folder to be made. `kind`: image, kernel, folder, or blank (no more than its length)."""

    path: Path
    kind: str
    format: str = "raw"
    size_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the rewriting has to know of the host.

    `folder` is where stand-ins will be. `emulator` is the one to use, `machines` the types it
    knows (empty: not known). `memory_bytes` is the most that a guest can have here. `image_size`
    gives the size of an image that is there, None where none is; `is_file` says whether a file can
    be read, `uuid_taken` whether a domain has a UUID.
    """

    folder: Path
    emulator: str
    machines: frozenset[str]
    kvm: bool
    image_size: Callable[[str], int | None]
    is_file: Callable[[str], bool]
    uuid_taken: Callable[[str], bool]
    memory_bytes: int
    base: Path = Path("/")


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """A command line that can be started, what was replaced in it, and the files that it needs."""

    argv: tuple[str, ...]
    stand_ins: tuple[StandIn, ...]
    files: tuple[StandInFile, ...]


@dataclass(kw_only=True)
class Scene:
    """A rewriting under way: what the handlers read, and where they leave what they did."""

    command_line: CommandLine
    around: Surroundings
    stand_ins: list[StandIn] = field(default_factory=list)
    files: dict[Path, StandInFile] = field(default_factory=dict)
    _by_source: dict[str, Path] = field(default_factory=dict)

    def tell(self, option: Option | str, now: Sequence[str], reason: str) -> None:
        """List a replacement."""
        was = option if isinstance(option, str) else option.text
        entry = StandIn(was=was, now=" ".join(now), reason=reason)
        if entry not in self.stand_ins:
            self.stand_ins.append(entry)

    def absolute(self, path: str) -> Path:
        """Give a path as QEMU would open it."""
        return self.around.base / path

    def image(self, source: str, *, format_: str | None, default_bytes: int) -> str:
        """Plan a stand-in for an image and give its path; one source has one stand-in."""
        known = self._by_source.get(source)
        if known is not None:
            return str(known)
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", source.rstrip("/").rsplit("/", 1)[-1])[-40:] or "image"
        path = self.around.folder / f"{len(self.files)}-{stem}"
        guessed = format_ or _format_by_name(source)
        size = self.around.image_size(str(self.absolute(source))) or default_bytes
        self._by_source[source] = path
        self.files[path] = StandInFile(path=path, kind="image", format=guessed, size_bytes=size)
        return str(path)

    def own_file(self, source: str, kind: str, size_bytes: int = 0) -> str:
        """Plan a stand-in of another kind (kernel, blank, folder) and give its path."""
        path = self.around.folder / f"{len(self.files)}-{kind}"
        known = self._by_source.setdefault(source, path)
        if known == path:
            self.files[path] = StandInFile(path=path, kind=kind, size_bytes=size_bytes)
        return str(known)


def _format_by_name(source: str) -> str:
    """Guess what QEMU would find when it probes: the name's ending says it."""
    ending = source.rsplit(".", 1)[-1].lower()
    return {"qcow2": "qcow2", "qcow": "qcow", "vmdk": "vmdk", "vdi": "vdi", "vhdx": "vhdx"}.get(ending, "raw")


# A handler gives the new words, None to leave the option as it is, and lists its reason itself.
Handler = Callable[[Scene, Option], "list[str] | None"]


def rewrite(argv: Sequence[str], around: Surroundings, handlers: Mapping[str, Handler]) -> Rewritten:
    """Replace what is not here; raises CommandLineError for a command line that cannot be read."""
    command_line = parse_options(argv)
    scene = Scene(command_line=command_line, around=around)
    words = [around.emulator]
    if argv[0] != around.emulator:
        scene.tell(argv[0], [around.emulator], "the emulator of this host is used")
    for option in command_line.options:
        handler = handlers.get(option.group)
        now = None if handler is None else handler(scene, option)
        words.extend(option.words if now is None else now)
    if not any(command_line.group(name) for name in ("display", "nographic", "vnc", "spice", "sdl", "curses")):
        words.extend(["-display", "none"])
        scene.tell("(a window)", ["-display", "none"], "a window on the host")
    return Rewritten(argv=tuple(words), stand_ins=tuple(scene.stand_ins), files=tuple(scene.files.values()))


def items_of(option: Option) -> Items:
    """Give the properties that stand in argv as pairs."""
    return [(item.key, item.value) for item in option.properties if item.given]


def written(option: Option, items: Items) -> list[str]:
    """Write an option with other properties."""
    if not items:
        return [option.spelling, ""]
    return [option.spelling, join_commas(items)]


def without(items: Items, *keys: str) -> Items:
    """Give the properties without some keys and without the dotted ones under them."""
    return [(key, value) for key, value in items if not any(key == k or key.startswith(f"{k}.") for k in keys)]


_MISSING_PROPERTY = re.compile(r"Property '(?P<owner>[^']*)\.(?P<name>[^'.]+)' not found")


def without_unknown_switch(argv: Sequence[str], message: str) -> tuple[tuple[str, ...], StandIn] | None:
    """Take out a property that this QEMU does not have, where it only switches something off.

    A QEMU without the property is a QEMU where it is off. Gives None for any
    other message, and where the value is not off: then the machine cannot be had here.
    """
    found = _MISSING_PROPERTY.search(message)
    if found is None:
        return None
    name = found["name"]
    spellings = {f"-{name}", f"{name}=off", f"{name}=no", f"{name}=false"}
    spellings |= {word.replace("_", "-") for word in spellings}
    for index, word in enumerate(argv):
        parts = word.split(",")
        kept = [part for part in parts[1:] if part not in spellings and part.replace("_", "-") not in spellings]
        if len(kept) + 1 < len(parts):
            now = ",".join([parts[0], *kept])
            was = next(part for part in parts[1:] if part not in kept)
            reason = f"this QEMU has no such property of {found['owner']}; off is what it does"
            return (*argv[:index], now, *argv[index + 1 :]), StandIn(was=was, now="", reason=reason)
    return None
