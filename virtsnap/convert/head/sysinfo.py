"""-smbios and -fw_cfg become <sysinfo>, -acpitable <os><acpi>."""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import Outcome, Word
from virtsnap.convert.rows import Key, Table, Version
from virtsnap.convert.values import UUID

# SMBIOS type -> <sysinfo>'s element and QEMU's keys in libvirt's order, which are libvirt's names too.
# Source: virSysinfo*Format() in virsysinfo.c, qemu_smbios_type*_opts in QEMU's hw/smbios/smbios.c.
SMBIOS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "0": ("bios", ("vendor", "version", "date", "release")),
    "1": ("system", ("manufacturer", "product", "version", "serial", "uuid", "sku", "family")),
    "2": ("baseBoard", ("manufacturer", "product", "version", "serial", "asset", "location")),
    "3": ("chassis", ("manufacturer", "version", "serial", "asset", "sku")),
}
OEM_STRINGS = "11"
# What a PC of 2.1 and later says of itself: smbios_set_defaults() in QEMU's hw/i386/pc_piix.c and pc_q35.c.
DEFAULT_MANUFACTURER = "QEMU"
DEFAULT_MANUFACTURER_SINCE = (2, 1)
# What stands in <sysinfo type='fwcfg'>; other names libvirt refuses. Source: virSysinfoParseFWCfgDef().
FW_CFG_PREFIX = "opt/"
FW_CFG_RESERVED = ("opt/ovmf/", "opt/org.qemu/")
# Tables that libvirt can name, and since when: one SLIC for long, the others since 11.2.
ACPI_TABLES: Mapping[str, tuple[str, Version]] = {
    "SLIC": ("slic", (0, 0)), "MSDM": ("msdm", (11, 2)), "": ("raw", (11, 2)),
}  # fmt: skip

TABLES = (
    *(
        Table(group="smbios", selector=("type", type_), keys=tuple(Key(key=key, hole=key) for key in keys))
        for type_, (_, keys) in SMBIOS.items()
    ),
    Table(group="smbios", selector=("type", OEM_STRINGS), keys=(Key(key="value", hole="oemStrings"),)),
    Table(group="fw_cfg", keys=tuple(Key(key=key, hole=key) for key in ("name", "file", "string"))),
    Table(group="acpitable", keys=tuple(Key(key=key, hole=key) for key in ("sig", "file"))),
)


def convert_sysinfo(draft: Draft) -> None:
    """Write <sysinfo> for SMBIOS and for firmware configuration, and the ACPI tables."""
    smbios = etree.Element("sysinfo", type="smbios")
    for word in draft.group("smbios"):
        _convert_smbios(draft, word, smbios)
    if len(smbios):
        draft.head.append("", smbios)
        draft.head.put("os", {"smbios_mode": "sysinfo"})
    fw_cfg = etree.Element("sysinfo", type="fwcfg")
    for word in draft.group("fw_cfg"):
        _convert_fw_cfg(draft, word, fw_cfg)
    if len(fw_cfg):
        draft.head.append("", fw_cfg)
    for word in draft.group("acpitable"):
        _convert_acpi_table(draft, word)


def _convert_smbios(draft: Draft, word: Word, sysinfo: etree._Element) -> None:
    type_ = word.peek("type") or ""
    if type_ == OEM_STRINGS and all(item.key in ("type", "value") for item in word.properties):
        strings = sysinfo.find("oemStrings")
        if strings is None:
            strings = etree.SubElement(sysinfo, "oemStrings")
        for value in word.properties.all("value"):
            etree.SubElement(strings, "entry").text = value
        word.claim_rest(Outcome.MAPPED)
        word.land(strings)
        return
    if type_ not in SMBIOS:
        return
    tag, keys = SMBIOS[type_]
    if any(item.key not in ("type", *keys) for item in word.properties):
        return
    if not _uuid_fits(draft, word) or (tag == "baseBoard" and sysinfo.find(tag) is not None):
        return
    element = sysinfo.find(tag)
    if element is None:
        element = etree.SubElement(sysinfo, tag)
    for key in keys:
        said = word.take(key)
        if said is None:
            continue
        for old in element.findall("entry"):
            if old.get("name") == key:
                element.remove(old)
        etree.SubElement(element, "entry", name=key).text = said
    if type_ == "2" and not word.has("manufacturer") and _knows_default_manufacturer(draft):
        # libvirt asks for a maker of the board whenever it asks for the table, if need be for an empty one.
        maker = etree.Element("entry", name="manufacturer")
        maker.text = DEFAULT_MANUFACTURER
        element.insert(0, maker)
    if not len(element):
        sysinfo.remove(element)
        if type_ != "1":
            # The bare type asks for a table that QEMU would leave out (smbios_build_type_2_table() in
            # hw/smbios/smbios.c), with QEMU's own strings; libvirt asks for none without an entry.
            return
    word.claim("type", Outcome.MAPPED)
    word.land(element)


def _knows_default_manufacturer(draft: Draft) -> bool:
    return draft.machine.family.name in ("pc", "q35") and draft.machine.is_since(DEFAULT_MANUFACTURER_SINCE)


def _uuid_fits(draft: Draft, word: Word) -> bool:
    """Make the system's UUID the domain's, which libvirt wants to be the same."""
    said = (word.peek("uuid") or "").lower()
    if word.peek("type") != "1" or not said:
        return True
    if not UUID.fullmatch(said):
        return False
    uuid = draft.root.find("uuid")
    if uuid is None:
        uuid = etree.SubElement(draft.root, "uuid")
        uuid.text = said
    return uuid.text == said


def _convert_fw_cfg(draft: Draft, word: Word, sysinfo: etree._Element) -> None:
    name = word.peek("name") or ""
    known = all(item.key in ("name", "file", "string") for item in word.properties)
    if not known or not name.startswith(FW_CFG_PREFIX) or name.startswith(FW_CFG_RESERVED):
        return
    file, text = word.take_read("file", draft.absolute), word.peek("string")
    if file is None and (text is None or word.has("file")):
        return
    word.claim("string", Outcome.MAPPED)
    entry = etree.SubElement(sysinfo, "entry", name=word.take("name") or "")
    if file is not None:
        entry.set("file", file)
    else:
        entry.text = text
    word.land(entry)


def _convert_acpi_table(draft: Draft, word: Word) -> None:
    kind, since = ACPI_TABLES.get(word.peek("sig") or "", ("", (0, 0)))
    if not kind or not draft.knows(since) or any(item.key not in ("sig", "file") for item in word.properties):
        return
    file = word.take_read("file", draft.absolute)
    if file is None:
        return
    table = etree.Element("table", type=kind)
    table.text = file
    word.claim("sig", Outcome.MAPPED)
    draft.head.append("os/acpi", table, word)
