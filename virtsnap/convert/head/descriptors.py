"""-add-fd: a descriptor that whoever starts QEMU hands over. libvirt starts QEMU itself and hands over its own."""

from __future__ import annotations

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome

NOT_INHERITED = "a descriptor of the process that starts QEMU; libvirt's QEMU does not inherit it"


def drop_descriptors(draft: Draft) -> None:
    """Drop what no subject has found a use for; call when all subjects are through."""
    for word in draft.group("add-fd"):
        if word.untouched:
            word.claim_all(Outcome.DROPPED, NOT_INHERITED)
            draft.warn(f"{word.option.text} dropped: {NOT_INHERITED}")
