"""A command line becomes a domain: the order in which the subjects are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxml import etree

from virtsnap.command_line.options import parse_options
from virtsnap.convert.buses.ccw import CcwDevices
from virtsnap.convert.buses.pci_controllers import strip_zpci, write_board_root, write_root
from virtsnap.convert.buses.usb import convert_machine_usb, settle_usb
from virtsnap.convert.consoles.monitors import convert_monitors
from virtsnap.convert.consoles.serials import convert_consoles, convert_serials
from virtsnap.convert.consoles.virtio_serial import strip_port_numbers
from virtsnap.convert.devices import convert_devices
from virtsnap.convert.draft import Draft
from virtsnap.convert.head.descriptors import drop_descriptors
from virtsnap.convert.head.globals import convert_card_roms
from virtsnap.convert.head.machine import convert_machine, domain_name, read_machine
from virtsnap.convert.head.subjects import FINISHING_SUBJECTS, HEAD_SUBJECTS
from virtsnap.convert.network.guestfwd import convert_guestfwd
from virtsnap.convert.network.mac_addresses import settle_macs
from virtsnap.convert.network.net_legacy import convert_nics
from virtsnap.convert.passed.passthrough import convert_rest
from virtsnap.convert.passed.unprintable import set_aside_unprintable
from virtsnap.convert.peripherals.iommus import convert_machine_iommu
from virtsnap.convert.peripherals.misc_devices import convert_balloon, convert_nvram
from virtsnap.convert.peripherals.panics import write_builtin_panic
from virtsnap.convert.peripherals.watchdogs import convert_watchdogs
from virtsnap.convert.references import check_references
from virtsnap.convert.report import write_report
from virtsnap.convert.rows import Version
from virtsnap.convert.screens.audio import convert_audio
from virtsnap.convert.screens.displays import convert_displays
from virtsnap.convert.screens.inputs import write_ps2
from virtsnap.convert.screens.sounds import convert_sound_words
from virtsnap.convert.screens.video import convert_vga, settle_video
from virtsnap.convert.storage.filesystems import convert_virtfs
from virtsnap.convert.storage.plugged_drives import convert_plugged_drives
from virtsnap.convert.storage.storage_rest import finish_storage
from virtsnap.convert.unwritten.defaults import convert_defaults
from virtsnap.convert.unwritten.readconfig import ReadFile, claim_configs, expand_configs, settle_configs
from virtsnap.domain_xml.templates import Templates, writable
from virtsnap.errors import CommandLineError

# The newest libvirt whose schema the tables know.
NEWEST: Version = (11, 3)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What came out: the domain XML as text, and the report (DESIGN.md gives its shape)."""

    xml: str
    report: dict[str, Any]


def _assign_addresses(draft: Draft) -> None:
    write_board_root(draft)
    settle_usb(draft)
    for element, item in draft.pci.assign():
        draft.override(element, item)
    strip_zpci(draft)
    draft.part(CcwDevices).assign()


# First what decides about the rest, last what is left over.
SUBJECTS: tuple[Callable[[Draft], None], ...] = (
    set_aside_unprintable,
    convert_machine,
    claim_configs,
    convert_defaults,
    *HEAD_SUBJECTS,
    write_root,
    convert_machine_usb,
    convert_vga,
    convert_guestfwd,
    convert_nics,
    convert_serials,
    convert_audio,
    convert_sound_words,
    convert_plugged_drives,
    convert_devices,
    convert_card_roms,
    convert_virtfs,
    convert_watchdogs,
    convert_balloon,
    convert_nvram,
    write_builtin_panic,
    settle_macs,
    strip_port_numbers,
    convert_consoles,
    convert_monitors,
    convert_displays,
    settle_video,
    finish_storage,
    *FINISHING_SUBJECTS,
    write_ps2,
    convert_machine_iommu,
    drop_descriptors,
    _assign_addresses,
    convert_rest,
    settle_configs,
)


def convert_command_line(
    argv: Sequence[str],
    *,
    name: str | None = None,
    default_name: str | None = None,
    for_libvirt: Version | None = None,
    environment: Sequence[tuple[str, str]] = (),
    templates: Templates | None = None,
    base: Path | None = None,
    find_program: Callable[[str], str | None] | None = None,
    read_file: ReadFile | None = None,
) -> Conversion:
    """Convert argv (argv[0] is the emulator) into a libvirt domain.

    `name` is the domain's name; without it the one that -name says, else
    `default_name`. `for_libvirt` is the version (major, minor) that the XML is
    written for, by default the newest that the tables know. Relative paths are
    taken from `base` (default: the root folder). `find_program` gives the path
    of a bare emulator name, as shutil.which does; `read_file` the text of a file that -readconfig names, None
    where it cannot be read. Raises CommandLineError, which
    names the argument, for a command line that QEMU itself could not read.
    """
    for index, word in enumerate(argv):
        if not writable(word):
            raise CommandLineError(
                f"{word!r} holds a character that no XML can carry", argument=index, hint="take the character out"
            )
    base = base or Path("/")
    command_line = expand_configs(parse_options(argv, environment), base, read_file)
    check_references(command_line)
    draft = Draft(
        command_line,
        read_machine(command_line),
        target=for_libvirt or NEWEST,
        templates=templates or Templates(),
        name=domain_name(command_line, name, default_name),
        base=base,
        find_program=find_program,
    )
    for subject in SUBJECTS:
        subject(draft)
    etree.indent(draft.root)
    xml = etree.tostring(draft.root, encoding="unicode") + "\n"
    return Conversion(xml=xml, report=write_report(draft))
