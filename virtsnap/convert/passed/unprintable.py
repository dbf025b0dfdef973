"""Options whose text has no room in a domain go to QEMU whole, and so does what refers to them.

libvirt's schema takes no line break in a path or a name, and XML takes no control character at all; QEMU takes
both. Such an option is set aside before any subject sees it, with the devices that use it, so that
none of them has to think of it: what is set aside is passed through as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable

from virtsnap.convert.draft import ID_KEYS, Draft
from virtsnap.convert.ledger import Word, refuse
from virtsnap.convert.values import fits_one_line
from virtsnap.domain_xml.templates import writable

# Options that are a thing of their own: a device, or what stands behind one. The keys of the others
# (-machine, -smp …) are read one by one, and each of them may be refused by its row.
WHOLE = frozenset({
    *ID_KEYS, "virtfs", "serial", "parallel", "debugcon", "mon", "monitor", "qmp", "qmp-pretty",
})

# The guest's main memory cannot be set aside; libvirt says itself in which file it is.
MEMORY_OF = {"machine": ("memory-backend",), "numa": ("memdev",)}
WHY = "it has a line break or a control character, for which libvirt's schema has no room"


def set_aside_unprintable(draft: Draft) -> None:
    """Set aside what a domain has no room for; CommandLineError where QEMU could not be given it either."""
    ids: set[str] = set()
    memory = {word.peek(key) for word in draft.words for key in MEMORY_OF.get(word.group, ()) if word.has(key)}
    for word in draft.words:
        texts = [text for item in word.properties for text in (item.key, item.value)]
        if word.group in WHOLE and (word.peek("id") or "") not in memory and not all(map(fits_one_line, texts)):
            _set_aside(word, WHY, ids)
        elif not all(map(writable, texts)):
            why, hint = "it holds a character that no XML can carry", "take the character out"
            raise refuse(word.option, why, hint)
    found = bool(ids)
    while found:
        users = [word for word in draft.words if word.group in WHOLE and not word.aside and _refers(word, ids)]
        for word in users:
            _set_aside(word, "it uses what goes to QEMU as it stands", ids)
        found = bool(users)


def _set_aside(word: Word, why: str, ids: set[str]) -> None:
    word.aside = True
    word.note(why)
    key = ID_KEYS.get(word.group, "id")
    ids |= {item.value for item in word.properties if item.key == key or item.key.endswith("node-name")}


def _refers(word: Word, ids: Iterable[str]) -> bool:
    """Tell whether some value is one of the ids, or a bus of one (`scsi0.0`)."""
    return any(item.value in ids or item.value.rpartition(".")[0] in ids for item in word.properties)
