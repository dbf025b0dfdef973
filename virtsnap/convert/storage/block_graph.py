"""-drive and -blockdev become a backend: the layers between a disk of the guest and its file.

QEMU's graph may nest nodes or name them, in keys or in file names. libvirt
knows one shape only, from the guest downwards:

    filters (throttle, copy-on-read) · a format · a slice of the storage · the storage

with a chain of backing images and, for qcow2, a data file beside it. Here a
graph is read into that shape; NotSayable is raised for any other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtsnap.command_line.keyval import SyntaxFault
from virtsnap.convert.claims import Claims, Entry, Options, Said
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable, Outcome, Word
from virtsnap.convert.storage.block_files import Keys, parse_file_name
from virtsnap.convert.storage.drives import Drive
from virtsnap.convert.storage.image_formats import guess_format
from virtsnap.convert.values import fits_one_line

# QEMU's format drivers and libvirt's words for them; luks is raw with encryption there.
FORMATS: Mapping[str, str] = {
    "raw": "raw", "qcow2": "qcow2", "qcow": "qcow", "qed": "qed", "vmdk": "vmdk", "vdi": "vdi", "vpc": "vpc",
    "dmg": "dmg", "bochs": "bochs", "cloop": "cloop", "parallels": "ploop", "luks": "raw",
}
FILTERS = frozenset({"throttle", "copy-on-read"})
DEEPEST = 200


@dataclass(kw_only=True)
class Backend:
    """What stands behind a disk. `layers` are all nodes from the top down, the storage last.

    `empty` is a drive without a medium: its one layer is the -drive itself.
    `ends` says that the command line ends the chain here (`backing=`, null).
    """

    claims: Claims
    drive: Drive | None = None
    format: str | None = None
    format_options: Options | None = None
    filters: list[Options] = field(default_factory=list)
    slice: Options | None = None
    layers: list[Options] = field(default_factory=list)
    backing: Backend | None = None
    ends: bool = False
    data_file: Backend | None = None
    guessed: bool = False
    empty: bool = False

    @property
    def storage(self) -> Options:
        """The lowest node: where the bytes are."""
        return self.layers[-1]

    @property
    def top(self) -> Options:
        """The node that the guest's device uses."""
        return self.layers[0]

    def get(self, *keys: str) -> str | None:
        """Give the first value that some layer says for a key, from the top, without taking it."""
        found = (layer.get(key) for layer in self.layers for key in keys)
        return next((value for value in found if value is not None), None)

    def take(self, *keys: str, outcome: Outcome = Outcome.MAPPED) -> str | None:
        """Take a key in every layer; give the value of the topmost that says it."""
        found = [layer.take(key, outcome) for layer in self.layers for key in keys]
        return next((value for value in found if value is not None), None)

    def whole(self) -> list[Backend]:
        """Give this backend and all that it stands on."""
        below = [part for part in (self.data_file, self.backing) if part is not None]
        return [self, *(inner for part in below for inner in part.whole())]


class BlockGraph:
    """All -drive and -blockdev of a command line, by the ids that devices use."""

    def __init__(self, draft: Draft, drives: list[Drive]) -> None:
        self._draft = draft
        self._drives: dict[str, Drive] = {}
        for drive in drives:
            self._drives.setdefault(drive.id, drive)
        self._nodes = {word.peek("node-name") or "": word for word in draft.group("blockdev")}

    def drive(self, id_: str) -> Drive | None:
        """Give the -drive of an id."""
        return self._drives.get(id_)

    def backend(self, id_: str) -> Backend:
        """Read what stands behind an id.

        Raises NotSayable where libvirt has no such shape, or nothing defines the id.
        """
        claims = Claims()
        drive = self._drives.get(id_)
        if drive is not None:
            return self._of_drive(drive, claims)
        return self._named(id_, Backend(claims=claims), 0)

    def _named(self, id_: str, backend: Backend, depth: int) -> Backend:
        word = self._nodes.get(id_)
        if word is None:
            drive = self._drives.get(id_)
            if drive is None:
                raise NotSayable(f"the node {id_} is not an option of its own")
            raise NotSayable(f"the node {id_} is a -drive")
        return self._walk(Options.of_word(word, backend.claims), backend, depth + 1)

    def file(self, word: Word, key: str, name: str, format_: str | None) -> Backend:
        """Read a bare file name, which is the value of a key, or a part of it."""
        claims = Claims()
        storage = Options(_derived(word, key, _parsed(name)), claims)
        claims.take(Said(word=word, key=key))
        backend = Backend(claims=claims, guessed=format_ is None)
        backend.format = format_ or guess_format(storage, self._draft.base)
        return self._walk(storage, backend, 0)

    def _of_drive(self, drive: Drive, claims: Claims) -> Backend:
        options = Options.of_word(drive.word, claims)
        backend = Backend(claims=claims, drive=drive)
        driver = options.take_any("format", "driver")
        file = options.get("file")
        inline = any(entry.key.startswith("file.") for entry in options.entries)
        if driver is not None and driver not in FORMATS:
            if file:
                raise NotSayable(f"{driver} is no format of an image")
            backend.format = "raw"
            backend.layers.append(options)
            return backend
        if not file and not inline:
            options.take("file")
            backend.layers.append(options)
            backend.empty = True
            return backend
        if file and file.startswith("json:"):
            options.take("file")
            own = [entry for entry in options.entries if entry.key != "file"]
            top = Options([*own, *_derived(drive.word, "file", _parsed(file))], claims)
            return self._walk(top, backend, 0)
        backend.layers.append(options)
        backend.format_options = options
        derived = _derived(drive.word, "file", _parsed(file)) if file else []
        options.take("file")
        storage = Options([*derived, *options.below("file").entries], claims)
        backend.format = driver
        if driver is None:
            backend.format = "raw" if drive.cdrom else guess_format(storage, self._draft.base)
            backend.guessed = not drive.cdrom
        elif driver == "raw" and (options.has("offset") or options.has("size")):
            backend.slice = options
        self._beside(options, backend, 0)
        return self._walk(storage, backend, 1)

    def _walk(self, options: Options, backend: Backend, depth: int) -> Backend:
        """Go down one node after the other until the storage."""
        if depth > DEEPEST:
            raise NotSayable("the nodes go round in a circle")
        driver = options.take("driver") or ("file" if options.has("filename") else None)
        backend.layers.append(options)
        if driver is None:
            raise NotSayable("a node has no driver")
        if driver in FILTERS:
            backend.filters.append(options)
            if driver == "copy-on-read":
                options.take("bottom", Outcome.IMPLIED)
            return self._child(options, "file", backend, depth)
        if driver not in FORMATS:
            backend.format = backend.format or "raw"
            return backend
        if driver == "raw":
            if options.has("offset") or options.has("size"):
                if backend.slice is not None:
                    raise NotSayable("a slice of a slice")
                backend.slice = options
            if backend.format is None:
                backend.format, backend.format_options = driver, options
        else:
            if backend.format is not None:
                raise NotSayable(f"{driver} below {backend.format}")
            backend.format, backend.format_options = driver, options
            self._beside(options, backend, depth)
        return self._child(options, "file", backend, depth)

    def _child(self, options: Options, key: str, backend: Backend, depth: int) -> Backend:
        name = options.get(key)
        if name:
            options.take(key)
            return self._named(name, backend, depth)
        return self._walk(options.below(key), backend, depth + 1)

    def _beside(self, options: Options, backend: Backend, depth: int) -> None:
        """Read the backing chain and the data file that a format names."""
        inline = any(entry.key.startswith("backing.") for entry in options.entries)
        if options.get("backing") == "" and not inline:
            options.take("backing")
            backend.ends = True
        elif options.has("backing") or inline:
            backend.backing = self._child(options, "backing", Backend(claims=backend.claims), depth)
        if options.has("data-file") or any(entry.key.startswith("data-file.") for entry in options.entries):
            backend.data_file = self._child(options, "data-file", Backend(claims=backend.claims), depth)


def _parsed(file: str) -> Keys:
    try:
        return parse_file_name(file)
    except SyntaxFault as exc:
        raise NotSayable(str(exc)) from exc


def _derived(word: Word, key: str, keys: Keys) -> list[Entry]:
    if not all(fits_one_line(value) for _, value in keys):
        raise NotSayable(f"{key}: it has a line break")
    return [Entry(key=name, value=value, said=Said(word=word, key=key, part=True)) for name, value in keys]
