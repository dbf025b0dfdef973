"""What is missing on a host is replaced by the same kind and size; what a guest sees stays."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from virtsnap.command_line.option_table import OPTIONS
from virtsnap.command_line.options import parse_options
from virtsnap.verify.stand_in_rules import DEVICES, GL_TWINS, HANDLERS
from virtsnap.verify.stand_ins import (
    DEFAULT_CDROM_BYTES,
    DEFAULT_DISK_BYTES,
    Rewritten,
    Surroundings,
    rewrite,
    without_unknown_switch,
)

AROUND = Surroundings(
    folder=Path("/f"),
    emulator="/usr/bin/qemu-system-x86_64",
    machines=frozenset({"pc", "q35", "pc-i440fx-7.2", "pc-q35-5.1", "none"}),
    kvm=False,
    image_size=lambda path: {"/have/this.qcow2": 4096 << 20}.get(path),
    is_file=lambda path: path.startswith("/have/"),
    uuid_taken=lambda uuid: uuid.startswith("aaaa"),
    memory_bytes=8 << 30,
)


def rewritten(text: str, around: Surroundings = AROUND) -> Rewritten:
    return rewrite(["qemu-system-x86_64", *shlex.split(text)], around, HANDLERS)


def words(text: str, around: Surroundings = AROUND) -> str:
    argv = list(rewritten(text, around).argv[1:])
    if argv[-2:] == ["-display", "none"]:
        del argv[-2:]
    return shlex.join(argv)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # A NIC keeps its model and its MAC, and loses its tap.
        ("-netdev tap,id=n0,ifname=tap7,script=/x,vhost=on,queues=2", "-netdev type=user,id=n0"),
        ("-netdev user,id=n0,hostfwd=tcp::22-:22,net=10.0.0.0/8", "-netdev type=user,id=n0,net=10.0.0.0/8"),
        ("-nic bridge,br=br0,model=e1000,mac=52:54:00:00:00:01",
         "-nic type=user,model=e1000,mac=52:54:00:00:00:01"),
        ("-net nic,model=virtio,vlan=0", "-net type=nic,model=virtio"),
        ("-net none", "-net none"),
        # Connections to the host.
        ("-chardev socket,id=c,path=/s,server=on,wait=off", "-chardev backend=null,id=c"),
        ("-chardev stdio,id=c,mux=on,signal=off", "-chardev backend=null,id=c,mux=on"),
        ("-chardev socket,id=m,path=/s -mon chardev=m,mode=control", ""),
        ("-serial mon:stdio", "-serial null"),
        ("-serial none", "-serial none"),
        ("-serial chardev:c", "-serial chardev:c"),
        ("-vnc :5", "-vnc unix:/f/vnc1"),
        ("-audiodev pa,id=a,server=x", "-audiodev driver=none,id=a"),
        # Host devices keep their place.
        ("-device vfio-pci,host=01:00.0,bus=pci.1,addr=0x3,multifunction=on,x-vga=on",
         "-object rng-random,id=stand-in-rng1,filename=/dev/urandom"
         " -device driver=virtio-rng-pci,bus=pci.1,addr=0x3,multifunction=on,rng=stand-in-rng1"),
        ("-device usb-host,vendorid=0x46d,bus=xhci.0,port=2", "-device driver=usb-mouse,bus=xhci.0,port=2"),
        ("-device virtio-vga-gl,xres=800", "-device driver=virtio-vga,xres=800"),
        ("-tpmdev emulator,id=t,chardev=c -device tpm-crb,tpmdev=t", ""),
        # Memory of the same size that nobody has to have.
        ("-object memory-backend-file,id=m,size=1G,mem-path=/dev/hugepages,share=on,prealloc=on",
         "-object qom-type=memory-backend-ram,id=m,size=1G,share=on"),
        ("-object memory-backend-memfd,id=m,size=1G,share=on",
         "-object memory-backend-memfd,id=m,size=1G,share=on"),
        ("-m 16G", "-m size=4096M"),
        ("-m 16G -numa node,memdev=m", "-m 16G -numa node,memdev=m"),
        ("-m 4G,slots=4,maxmem=4T", "-m size=4G,slots=4,maxmem=524288M"),
        # KVM that cannot be used.
        ("-enable-kvm -cpu host,+vmx,hv_relaxed,-kvm_pv_eoi,enforce", "-cpu max,+vmx"),
        ("-machine q35,accel=kvm:tcg", "-machine type=q35,accel=tcg"),
        ("-accel kvm -accel tcg", "-accel tcg -accel tcg"),
        # What only another QEMU knows.
        ("-id 100 -machine pc-q35-5.1+pve0", "-machine type=pc-q35-5.1"),
        ("-machine pc-q35-rhel8.2.0", "-machine type=q35"),
        ("-machine pc-0.12", "-machine type=pc"),
        ("-machine odd-board", "-machine odd-board"),
        ("-daemonize -pidfile /p -S -incoming defer", ""),
        # A UUID that a domain has already; files that are not here.
        ("-uuid aaaa", ""),
        ("-uuid bbbb", "-uuid bbbb"),
        ("-boot menu=on,splash=/x.jpg", "-boot menu=on"),
        ("-bios /x/OVMF.fd", "-bios /f/0-blank"),
        ("-bios bios-256k.bin", "-bios bios-256k.bin"),
        ("-kernel /have/vmlinuz", "-kernel /have/vmlinuz"),
        ("-kernel /x/vmlinuz", "-kernel /f/0-kernel"),
        ("-virtfs local,path=/home,mount_tag=t,security_model=none",
         "-virtfs fsdriver=local,path=/f/0-folder,mount_tag=t,security_model=none"),
    ],
)
def test_words_are_replaced_and_nothing_else_changes(before: str, after: str) -> None:
    assert words(before) == after


def test_window_on_the_host_is_closed() -> None:
    assert rewritten("-display gtk,gl=on").argv[1:] == rewritten("").argv[1:] == ("-display", "none")


def test_kvm_that_works_is_left_alone() -> None:
    text = "-enable-kvm -machine q35,accel=kvm -cpu host,hv_relaxed,enforce"
    assert words(text, replace(AROUND, kvm=True)) == text


@pytest.mark.parametrize(
    ("option", "format_", "size_bytes"),
    [
        ("-drive file=/x/a.img,if=virtio", "raw", DEFAULT_DISK_BYTES),
        ("-drive file=/have/this.qcow2,format=qcow2", "qcow2", 4096 << 20),
        ("-drive file=rbd:pool/image,format=raw", "raw", DEFAULT_DISK_BYTES),
        ("-drive file.driver=nbd,file.host=h,format=qcow2", "qcow2", DEFAULT_DISK_BYTES),
        ("-cdrom /x/a.iso", "raw", DEFAULT_CDROM_BYTES),
        ("-hda a.vmdk", "vmdk", DEFAULT_DISK_BYTES),
        ("-fda /x/dos", "raw", 1440 << 10),
        ("a.qcow2", "qcow2", DEFAULT_DISK_BYTES),
        ("-blockdev driver=qcow2,node-name=q,file.driver=file,file.filename=/x", "qcow2", DEFAULT_DISK_BYTES),
        ("""-blockdev '{"driver":"luks","key-secret":"s","node-name":"n","file":{"driver":"rbd","image":"i"}}'""",
         "raw", DEFAULT_DISK_BYTES),
        ("-blockdev driver=file,node-name=f,filename=/x -blockdev driver=qcow2,node-name=q,file=f",
         "qcow2", DEFAULT_DISK_BYTES),
    ],
)
def test_image_is_replaced_by_one_of_its_format_and_size(option: str, format_: str, size_bytes: int) -> None:
    done = rewritten(option)
    (image,) = done.files
    assert (image.kind, image.format, image.size_bytes) == ("image", format_, size_bytes)
    assert str(image.path) in " ".join(done.argv)
    assert done.stand_ins[-1].reason


def test_one_image_on_two_paths_stays_one_image() -> None:
    done = rewritten("-drive file=/x,if=none,id=a,file.locking=off -drive file=/x,if=none,id=b")
    assert len(done.files) == 1


def test_drive_keeps_everything_that_is_not_the_image() -> None:
    now = words("-drive file=/x,if=none,id=d,format=raw,cache=none,aio=native,media=cdrom,serial=7")
    assert now == "-drive if=none,id=d,format=raw,cache=none,media=cdrom,serial=7,file=/f/0-x"


def test_empty_drive_stays_empty() -> None:
    assert words("-drive if=none,id=d,media=cdrom") == "-drive if=none,id=d,media=cdrom"


def test_firmware_that_is_there_is_used_and_variables_never_are() -> None:
    done = rewritten("-drive if=pflash,readonly=on,file=/have/code.fd -drive if=pflash,file=/have/vars.fd")
    assert "/have/code.fd" in " ".join(done.argv)
    assert "/have/vars.fd" not in " ".join(done.argv)


def test_buses_of_a_missing_configuration_file_are_made() -> None:
    now = words("-machine q35 -readconfig /x.cfg -device usb-tablet,bus=ehci.0 -device VGA,bus=pcie.0,addr=0x1e")
    assert "-device ich9-usb-ehci1,id=ehci,addr=0x1d" in now
    assert "readconfig" not in now


def test_every_replacement_has_a_reason_and_says_what_was_there() -> None:
    done = rewritten("-netdev tap,id=n -device vfio-pci,host=1:0.0 -daemonize -drive file=/x -vnc :1 -cpu host")
    assert all(entry.was and entry.reason for entry in done.stand_ins)
    assert len(done.stand_ins) >= 6


def test_rewritten_words_can_be_read_again() -> None:
    text = "-netdev tap,id=n -device vfio-pci,host=1:0.0 -drive file=/x,,y -device usb-host -nic tap"
    assert parse_options(rewritten(text).argv).options


def test_switch_that_this_qemu_lacks_is_taken_out_where_it_is_off() -> None:
    argv = ["q", "-cpu", "kvm64,-cet-ss,+sep"]
    message = "can't apply global kvm64-x86_64-cpu.cet-ss=off: Property 'kvm64-x86_64-cpu.cet-ss' not found"
    done = without_unknown_switch(argv, message)
    assert done is not None
    assert done[0] == ("q", "-cpu", "kvm64,+sep")
    assert "off is what it does" in done[1].reason
    assert without_unknown_switch(["q", "-cpu", "kvm64,+new"], "Property 'k.new' not found") is None
    assert without_unknown_switch(argv, "another message") is None


def test_every_group_with_a_handler_is_one_of_qemus() -> None:
    groups = {row.group for row in OPTIONS.values()} | {"unknown"}
    assert not set(HANDLERS) - groups


def test_every_device_row_gives_a_reason() -> None:
    assert all(row.reason for row in DEVICES.values())
    assert not set(GL_TWINS) & set(DEVICES)
