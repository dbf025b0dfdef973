"""What closes the storage subjects: names, built-in controllers, and options that hold for all disks."""

from __future__ import annotations

from virtsnap.convert.draft import Draft
from virtsnap.convert.head.boot_order import settle_boot_order
from virtsnap.convert.head.iothreads import convert_iothreads, convert_main_loop
from virtsnap.convert.ledger import Outcome
from virtsnap.convert.storage.disk_secrets import convert_master_key
from virtsnap.convert.storage.disk_targets import name_targets
from virtsnap.convert.storage.floppies import convert_floppy_controller
from virtsnap.convert.storage.storage_controllers import write_builtin
from virtsnap.convert.storage.throttling import convert_throttle_groups


def finish_storage(draft: Draft) -> None:
    """Finish the disks when all devices are converted."""
    convert_floppy_controller(draft)
    write_builtin(draft)
    name_targets(draft)
    convert_throttle_groups(draft)
    convert_iothreads(draft)
    convert_main_loop(draft)
    convert_master_key(draft)
    settle_boot_order(draft)
    for word in draft.group("iscsi"):
        # it names the initiator for all iSCSI disks; a disk of the domain has taken it already
        if word.untouched and not _passed_through(draft, "iscsi"):
            word.claim_rest(Outcome.IMPLIED, "no disk is on iSCSI")
    for word in draft.group("snapshot"):
        if not any(drive.untouched for drive in draft.said("drive")):
            word.claim_rest(Outcome.MAPPED, "each disk of a -drive is <transient/>")


def _passed_through(draft: Draft, text: str) -> bool:
    """Tell whether some drive or node that QEMU gets as it stands says a word."""
    return any(word.untouched and text in word.option.text for word in draft.said("drive", "blockdev"))
