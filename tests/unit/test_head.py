"""Outside <devices>: broken values are refused by name, versions decide, every -global row has a case."""

from __future__ import annotations

import pytest
from lxml import etree

from tests.case_files import all_cases
from virtsnap.command_line.options import parse_options
from virtsnap.convert import convert_command_line
from virtsnap.convert.head.cpu_features import canonical, known_model, libvirt_feature
from virtsnap.convert.head.globals import GLOBALS
from virtsnap.convert.head.memory import ranges
from virtsnap.convert.head.topology import prefers_sockets
from virtsnap.errors import CommandLineError


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-m", "lots"], "lots"),
        (["-m", "size=0"], "size is 0"),
        (["-m", "1G,slots=few,maxmem=2G", "-numa", "node"], "slots='few'"),
        (["-m", "9" * 400 + ".5G"], "beyond"),
        (["-smp", "two"], "cpus='two'"),
        (["-smp", "4,threads=-1"], "threads='-1'"),
        (["-smp", "99999999999"], "more than any machine"),
        (["-uuid", "1234"], "'1234' is not a UUID"),
        (["-boot", "order=x"], "order='x'"),
        (["-rtc", "base=yesterday"], "'yesterday' is not a time"),
        (["-numa", "node,cpus=0-99999999999"], "no range"),
        (["-numa", "node,nodeid=first"], "nodeid='first'"),
        (["-numa", "node,mem=much"], "'much' is not a size"),
    ],
)
def test_broken_value_is_refused_with_its_argument_and_a_hint(words: list[str], named: str) -> None:
    with pytest.raises(CommandLineError) as caught:
        convert_command_line(["qemu-system-x86_64", "-nodefaults", *words])
    assert named in caught.value.message
    assert caught.value.argument == 3
    assert caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        ["-accel", "tcg,tb-size=big"],
        ["-tb-size", "big"],
        ["-boot", "reboot-timeout=soon"],
        ["-cpu", "host,hv-spinlocks=many,phys-bits=all"],
        ["-machine", "memory-backend=m", "-object", "memory-backend-memfd,id=m,size=1G,hugetlb=on,hugetlbsize=x"],
        ["-machine", "memory-backend=m", "-object", "memory-backend-ram,id=m,size=1G,host-nodes=x,policy=bind"],
        ["-smp", "sockets=65000,cores=65000"],
    ],
)
def test_value_that_only_libvirt_cannot_read_is_no_error(words: list[str]) -> None:
    assert convert_command_line(["qemu-system-x86_64", "-nodefaults", *words]).xml


def test_every_global_row_is_hit_by_a_case() -> None:
    said = {
        (option.properties.get("driver"), option.properties.get("property"))
        for case in all_cases()
        for option in parse_options(case.command.argv).options
        if option.group == "global"
    }
    assert {(row.driver, row.property) for row in GLOBALS} <= said


@pytest.mark.parametrize(
    ("machine", "sockets"),
    [
        ("pc", False), ("q35", False), ("pc-i440fx-6.1", True), ("pc-q35-6.2", False), ("pc-q35-10.0", False),
        ("virt-4.2", True), ("pc-q35-rhel8.5.0", True), ("pc-q35-rhel9.2.0", False), ("pc-0.12", True),
        ("pc-i440fx-5.1+pve0", True), ("s390-ccw-virtio-4.2", True), ("raspi3b", False),
    ],
)  # fmt: skip
def test_machine_versions_up_to_6_1_count_sockets_first(machine: str, sockets: bool) -> None:
    assert prefers_sockets(machine) is sockets


def test_ranges_are_joined_in_order() -> None:
    assert ranges(["4", "0-1", "2"]) == "0-2,4"


def test_names_of_features_are_those_that_the_target_knows() -> None:
    assert libvirt_feature(canonical("sse4_1"), (9, 0)) == "sse4.1"
    assert libvirt_feature(canonical("lahf_lm"), (9, 0)) == "lahf_lm"
    assert libvirt_feature("vmx-ept", (9, 0)) is None
    assert libvirt_feature("vmx-ept", (11, 3)) == "vmx-ept"
    assert libvirt_feature("no-such-thing", (11, 3)) is None
    assert known_model("Haswell", (9, 0))
    assert not known_model("SapphireRapids", (9, 0))


def test_children_stand_in_libvirts_order() -> None:
    argv = ["qemu-system-x86_64", "-uuid", "3e1e6f0d-8b0a-4d0b-9d4e-0f1a2b3c4d5e", "-no-reboot", "-kernel", "/k",
            "-append", "x", "-cpu", "Haswell,+avx", "-smp", "2", "-global", "PIIX4_PM.disable_s3=1",
            "-realtime", "mlock=on"]  # fmt: skip
    root = etree.fromstring(convert_command_line(argv).xml)
    assert [child.tag for child in root] == [
        "name", "uuid", "memory", "memoryBacking", "vcpu", "os", "features", "cpu", "clock", "on_reboot", "pm",
        "devices",
    ]  # fmt: skip
    cpu = root.find("cpu")
    assert cpu is not None
    assert [child.tag for child in cpu] == ["model", "topology", "feature"]
