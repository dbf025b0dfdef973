"""Plans are values: what would be done, without a host."""

from __future__ import annotations

import dataclasses

import pytest
from lxml import etree

from tests.unit.snapshot_samples import (
    BASE,
    FOLDER,
    domain_xml,
    line_of_three,
    memory,
    ours,
    overlay,
    view,
)
from virtsnap.domain_xml.beside_disks import places_beside_disks
from virtsnap.domain_xml.live import parse_xml
from virtsnap.errors import NoSuchSnapshotError, UnsupportedError, UsageError
from virtsnap.host.state_archive import unreachable
from virtsnap.snapshots.catalog import read_catalog
from virtsnap.snapshots.definition import on_new_overlays
from virtsnap.snapshots.engines.restore import RestoreEngine
from virtsnap.snapshots.plan import (
    Final,
    LoadRequest,
    SaveRequest,
    plan_load,
    plan_remove,
    plan_save,
)
from virtsnap.snapshots.steps import (
    KeepState,
    MakeOverlay,
    Plan,
    RecordFacts,
    RemoveFiles,
    ReplaceState,
    RequireAbsent,
    RestoreMemory,
    SyncFiles,
    TakeSnapshot,
)
from virtsnap.snapshots.view import View

LINE = [overlay(3), overlay(2), overlay(1), BASE]


def save(name: str, of: View, directory: str | None = None) -> Plan:
    return plan_save(
        SaveRequest(name=name, directory=directory, description=None, token="000000aa", now_ns=1), of
    )


def load(name: str, of: View, *, final: Final = "running", keep_newer: bool = False) -> Plan:
    facts = of.catalog.find(name).facts
    assert facts is not None
    saved = None if facts.memory is None else domain_xml(facts.disks[0].frozen.path)
    return plan_load(
        LoadRequest(name=name, final=final, keep_newer=keep_newer, token="000000bb", now_s=9), of,
        facts=facts, saved_xml=saved, engine=RestoreEngine(),
    )


def kinds(plan: Plan) -> list[str]:
    return [type(step).__name__ for step in (*plan.steps, *plan.afterwards)]


def removed(plan: Plan) -> set[str]:
    return {path for step in plan.afterwards if isinstance(step, RemoveFiles) for path in step.paths}


def test_a_first_save_makes_a_folder_beside_the_disk_and_one_object() -> None:
    plan = save("s", view())
    assert kinds(plan) == ["MakeFolder", "RequireAbsent", "TakeSnapshot", "RecordFacts"]
    take = plan.steps[2]
    assert isinstance(take, TakeSnapshot)
    assert take.memory_path == f"{FOLDER}/000000aa.mem"
    assert take.overlays == (("vda", f"{FOLDER}/000000aa-vda.qcow2"),)
    asked = parse_xml(take.xml)
    assert [(disk.get("name"), disk.get("snapshot")) for disk in asked.iterfind("disks/disk")] == [
        ("vda", "external"), ("hda", "no"),
    ]


def test_a_durable_save_writes_everything_out_before_it_is_recorded() -> None:
    request = SaveRequest(name="s", directory=None, description=None, token="000000aa", now_ns=1, durable=True)
    plan = plan_save(request, view())
    assert kinds(plan) == ["MakeFolder", "RequireAbsent", "TakeSnapshot", "SyncFiles", "RecordFacts"]
    sync = plan.steps[3]
    assert isinstance(sync, SyncFiles)
    assert sync.paths == (f"{FOLDER}/000000aa.mem", f"{FOLDER}/000000aa-vda.qcow2", BASE)


def test_a_name_cannot_inject_xml_nor_leave_the_folder() -> None:
    plan = save("../<x>&'\"/", view())
    take = plan.steps[2]
    assert isinstance(take, TakeSnapshot)
    assert etree.fromstring(take.xml).findtext("name") == "%2E.%2F<x>&'\"%2F"
    assert all(path.startswith(FOLDER + "/") for _, path in take.overlays)


def test_a_save_elsewhere_still_has_a_folder_of_the_domains_own() -> None:
    take = save("s", view(), "/big").steps[2]
    assert isinstance(take, TakeSnapshot)
    assert str(take.memory_path).startswith(FOLDER.replace("/images", "/big"))


def test_a_second_save_stays_in_the_folder() -> None:
    take = save("s", view(chain=LINE)).steps[2]
    assert isinstance(take, TakeSnapshot)
    assert take.memory_path == f"{FOLDER}/000000aa.mem"


def test_replacing_drops_the_old_one_only_after_the_new_one_is_recorded() -> None:
    plan = save("c", view(line_of_three(), chain=LINE))
    assert kinds(plan) == [
        "MakeFolder", "RequireAbsent", "TakeSnapshot", "RecordFacts", "ForgetObjects", "RenameObject",
        "RemoveFiles",
    ]
    assert removed(plan) == {memory(3)}  # its layers carry the line on


def test_a_shut_off_domain_gets_a_snapshot_without_memory() -> None:
    steps = save("s", view(active=False)).steps
    overlay, take = steps[2:4]
    assert isinstance(overlay, MakeOverlay)
    assert isinstance(take, TakeSnapshot)
    assert (take.memory_path, take.is_active) == (None, False)
    # libvirt would make it readable by all, and no call of libvirt's changes that
    assert take.overlays == (("vda", overlay.path),)
    assert take.asked == {"reuse-external"}


def test_a_transient_domain_is_persistent_for_the_length_of_a_save() -> None:
    names = kinds(save("s", view(persistent=False)))
    assert (names[0], names[-1]) == ("MakePersistent", "MakeTransient")


QEMU = "<qemu:commandline>{}</qemu:commandline>"


def args(*words: str) -> str:
    return QEMU.format("".join(f"<qemu:arg value='{word}'/>" for word in words))


@pytest.mark.parametrize("extra", [
    args("-drive", "file=/x.raw,if=none,id=d"),
    args("--drive", "file=/x.raw,snapshot=on"),
    args("-hda", "/x.raw"),
    args("-blockdev", '{"driver":"file","filename":"/x","node-name":"d"}'),
    args("-blockdev", "driver=file,filename=/x,node-name=f", "-blockdev", "driver=raw,file=f,node-name=d"),
])
def test_a_writable_disk_that_only_qemu_knows_is_refused(extra: str) -> None:
    with pytest.raises(UnsupportedError, match="qemu:commandline"):
        save("s", view(xml=domain_xml(extra=extra)))


@pytest.mark.parametrize("extra", [
    args("-drive", "file=/x.iso,media=cdrom"),
    args("-drive", "file=/x.raw,if=none,id=d,readonly=on"),
    args("-drive", "if=none,id=d"),
    args("-cdrom", "/x.iso"),
    args("-blockdev", "driver=file,filename=/x,node-name=f", "-blockdev",
         "driver=raw,file=f,node-name=d,read-only=on"),
    args("-blockdev", '{"driver":"null-co","node-name":"d"}'),
    args("-device", "virtio-blk-pci,drive=d", "-global", "x.y=z"),
])
def test_a_disk_that_qemu_cannot_write_to_is_not(extra: str) -> None:
    save("s", view(xml=domain_xml(extra=extra)))


@pytest.mark.parametrize(("disk_extra", "why"), [
    ("<shareable/>", "shared"), ("<transient/>", "transient"), ("<mirror type='file'/>", "block job"),
    ("<encryption format='luks'/>", "encrypted"),
])
def test_a_disk_that_cannot_be_kept_is_refused_with_the_reason(disk_extra: str, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        save("s", view(xml=domain_xml(disk_extra=disk_extra)))


UEFI_AND_TPM = domain_xml(os="<nvram>/nvram</nvram>", devices=(
    "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
))
ARCHIVE = f"{FOLDER}/000000aa.state"


def beside(xml: str, *, active: bool = False) -> View:
    return dataclasses.replace(view(xml=xml, active=active), tpm_root="/tpm/uuid")


def test_uefi_variables_and_tpm_state_are_kept_where_the_memory_is_not() -> None:
    assert "KeepState" not in kinds(save("s", beside(UEFI_AND_TPM, active=True)))
    plan = save("s", beside(UEFI_AND_TPM))
    assert kinds(plan) == [
        "MakeFolder", "RequireAbsent", "KeepState", "MakeOverlay", "TakeSnapshot", "RecordFacts"
    ]
    absent, keep, record = plan.steps[1], plan.steps[2], plan.steps[5]
    assert isinstance(absent, RequireAbsent)
    assert ARCHIVE in absent.paths
    assert isinstance(keep, KeepState)
    assert (keep.archive, [(place.kind, place.path) for place in keep.places]) == (
        ARCHIVE, [("nvram", "/nvram"), ("tpm", "/tpm/uuid/tpm2")]
    )
    assert isinstance(record, RecordFacts)
    assert record.facts.files[0] == ARCHIVE


@pytest.mark.parametrize(("xml", "why"), [
    (domain_xml(os="<nvram type='network'><source protocol='iscsi'/></nvram>"), "does not say where UEFI"),
    (domain_xml(devices="<tpm><backend type='external'><source type='unix'/></backend></tpm>"), "TPM"),
])
def test_state_that_cannot_be_reached_stands_in_the_way_of_an_offline_save_alone(xml: str, why: str) -> None:
    places = places_beside_disks(parse_xml(xml), tpm_root="/tpm/uuid")
    found = dataclasses.replace(beside(xml), unreachable=tuple(unreachable(places)))
    with pytest.raises(UnsupportedError, match=why):
        save("s", found)
    save("s", dataclasses.replace(found, is_active=True))


def test_the_disks_of_a_running_uefi_guest_alone_would_lose_its_variables() -> None:
    request = SaveRequest(
        name="s", directory=None, description=None, token="000000aa", now_ns=1, disk_only=True
    )
    with pytest.raises(UnsupportedError, match="NVRAM"):
        plan_save(request, beside(UEFI_AND_TPM, active=True))


@pytest.mark.parametrize("state", ["running", "shutoff"])
def test_a_load_keeps_what_is_beside_the_disks_after_the_stop_and_puts_back_what_was(state: str) -> None:
    snapshot = ours(1, "a", parent=None, chain=[BASE], state=state, domain=UEFI_AND_TPM)
    of = view(read_catalog([(snapshot, True)]), chain=[overlay(1), BASE])
    plan = load("a", dataclasses.replace(of, tpm_root="/tpm/uuid"))
    assert kinds(plan)[3:5] == ["StopGuest", "ReplaceState"]
    replace = plan.steps[4]
    assert isinstance(replace, ReplaceState)
    assert replace.archive == (None if state == "running" else f"{FOLDER}/00000001.state")
    assert replace.before == f"{FOLDER}/000000bb.state"
    assert replace.before in removed(plan)


def test_rm_takes_the_archive_of_what_was_beside_the_disks_along() -> None:
    snapshot = ours(1, "a", parent=None, chain=[BASE], state="shutoff", domain=UEFI_AND_TPM)
    assert f"{FOLDER}/00000001.state" in removed(plan_remove("a", view(read_catalog([(snapshot, True)]))))


BLOCK = (
    "<domain><name>sut</name><os/><devices><disk type='block' device='disk'><driver name='qemu' type='raw'/>"
    "<source dev='/dev/loop7'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
)


def test_a_block_device_needs_a_place_for_its_overlay_and_becomes_a_file() -> None:
    of = view(xml=BLOCK, chain=["/dev/loop7"])
    with pytest.raises(UnsupportedError, match="no writable disk in a file"):
        save("s", of)
    take = save("s", of, "/images").steps[2]
    assert isinstance(take, TakeSnapshot)
    assert take.overlays == (("vda", f"{FOLDER}/000000aa-vda.qcow2"),)
    disk = parse_xml(on_new_overlays(BLOCK, {"vda": "/images/x.qcow2"})).find("devices/disk")
    assert disk is not None
    source = disk.find("source")
    assert source is not None
    assert (disk.get("type"), source.items()) == ("file", [("file", "/images/x.qcow2")])


def test_a_network_disk_is_refused_with_the_reason() -> None:
    network = "<disk type='network' device='disk'><source protocol='nbd' name='x'/><target dev='vdb'/></disk>"
    with pytest.raises(UnsupportedError, match="vdb is of type network"):
        save("s", view(xml=domain_xml(devices=network)))


@pytest.mark.parametrize("xml", [
    domain_xml(extra=QEMU.format("<qemu:arg value='-device'/><qemu:arg value='nvme,serial=x'/>")),
    domain_xml(extra=QEMU.format(
        "<qemu:arg value='-device'/><qemu:arg value='{&quot;driver&quot;:&quot;nvme&quot;}'/>"
    )),
    domain_xml(devices="<controller type='nvme' index='0'/>"),
])
def test_nvme_is_refused_before_qemu_11_where_its_memory_is_to_be_saved(xml: str) -> None:
    old = dataclasses.replace(view(xml=xml), qemu_version=(10, 0))
    with pytest.raises(UnsupportedError, match="NVMe"):
        save("s", old)
    save("s", dataclasses.replace(old, qemu_version=(11, 1)))
    save("s", dataclasses.replace(view(xml=xml, active=False), qemu_version=(10, 0)))


def test_a_broken_chain_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="not whole"):
        save("s", dataclasses.replace(view(), chains={}))


def test_a_load_can_fail_only_before_the_stop_or_be_taken_back() -> None:
    plan = load("b", view(line_of_three(), chain=LINE))
    assert kinds(plan) == [
        "MakeFolder", "RequireAbsent", "MakeOverlay", "StopGuest", "RestoreMemory", "DefineDomain",
        "MakeCurrent", "ResumeGuest", "ForgetObjects", "RemoveFiles",
    ]


def test_the_restored_definition_names_the_new_overlay_without_a_backing_store() -> None:
    plan = load("b", view(line_of_three(), chain=LINE))
    restore = next(step for step in plan.steps if isinstance(step, RestoreMemory))
    disk = parse_xml(restore.xml).find("devices/disk")
    assert disk is not None
    source, driver = disk.find("source"), disk.find("driver")
    assert source is not None
    assert driver is not None
    assert source.items() == [("file", f"{FOLDER}/000000bb-vda.qcow2")]
    assert driver.items() == [("name", "qemu"), ("type", "qcow2"), ("cache", "unsafe")]
    assert disk.find("backingStore") is None


def test_a_linear_load_removes_what_only_later_snapshots_and_the_line_left_needed() -> None:
    found = view(line_of_three(), chain=LINE)
    assert removed(load("a", found)) == {memory(2), memory(3), overlay(1), overlay(2), overlay(3)}
    assert removed(load("b", found)) == {memory(3), overlay(2), overlay(3)}
    assert removed(load("c", found)) == {overlay(3)}
    assert BASE not in removed(load("a", found))


def test_keep_newer_removes_only_the_line_left() -> None:
    plan = load("a", view(line_of_three(), chain=LINE), keep_newer=True)
    assert "ForgetObjects" not in kinds(plan)
    assert removed(plan) == {overlay(3)}


@pytest.mark.parametrize(("final", "state", "runs"), [
    ("running", "paused", True), ("as-saved", "paused", False), ("as-saved", "running", True),
    ("paused", "running", False),
])
def test_what_the_guest_does_after_a_load(final: Final, state: str, runs: bool) -> None:
    catalog = read_catalog([(ours(1, "a", parent=None, chain=[BASE], state=state), True)])
    plan = load("a", view(catalog, chain=[overlay(1), BASE]), final=final)
    assert ("ResumeGuest" in kinds(plan)) is runs


def test_an_offline_snapshot_is_booted_unless_it_is_to_stay_as_saved() -> None:
    catalog = read_catalog([(ours(1, "a", parent=None, chain=[BASE], state="shutoff"), True)])
    of = view(catalog, chain=[overlay(1), BASE])
    assert kinds(load("a", of))[3:7] == ["StopGuest", "DefineDomain", "StartGuest", "ResumeGuest"]
    assert "StartGuest" not in kinds(load("a", of, final="as-saved"))


def test_rm_keeps_every_layer_that_something_stands_on() -> None:
    found = view(line_of_three(), chain=LINE)
    for name, number in (("a", 1), ("b", 2), ("c", 3)):
        assert removed(plan_remove(name, found)) == {memory(number)}
    after_load_of_a = view(line_of_three(), chain=[overlay(9), BASE])
    assert removed(plan_remove("c", after_load_of_a)) == {memory(3), overlay(2), overlay(3)}
    assert removed(plan_remove("b", after_load_of_a)) == {memory(2)}


def test_where_a_chain_cannot_be_followed_only_memory_goes() -> None:
    found = dataclasses.replace(view(line_of_three(), chain=[overlay(9), BASE]), chains={})
    assert removed(plan_remove("c", found)) == {memory(3)}


def test_files_that_are_not_virtsnaps_are_never_removed() -> None:
    catalog = read_catalog([(ours(1, "a", parent=None, chain=["/images/other.qcow2"]), True)])
    plan = plan_remove("a", view(catalog, chain=[BASE]))
    assert removed(plan) == {memory(1), overlay(1)}


def test_missing_and_bad_names() -> None:
    with pytest.raises(NoSuchSnapshotError):
        plan_remove("x", view())
    with pytest.raises(UsageError):
        save("x" * 201, view())


def test_every_step_says_in_a_line_what_it_does() -> None:
    lines = load("a", view(line_of_three(), chain=LINE, persistent=False)).describe()
    assert len(lines) == 12
    assert all(line and "\n" not in line for line in lines)
