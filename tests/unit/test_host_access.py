"""Words that run programs of the host or open its files are marked in the report, whatever becomes of them."""

from __future__ import annotations

import pytest

from virtsnap.command_line.options import parse_options
from virtsnap.convert import convert_command_line
from virtsnap.convert.host_access import ROWS_OF_ACCESS, host_access
from virtsnap.convert.ledger import Word

MARKED = [
    (["-netdev", "tap,id=a,script=/etc/up,downscript=/etc/down"],
     "runs /etc/up when the domain starts; runs /etc/down when the domain stops"),
    (["-netdev", "tap,id=a"],
     "runs /etc/qemu-ifup when the domain starts; runs /etc/qemu-ifdown when the domain stops"),
    (["-netdev", "bridge,id=a,helper=/opt/helper"], "runs /opt/helper"),
    (["-nic", "user,smb=/srv"], "runs smbd, which shares /srv with the guest"),
    (["-net", "user,tftp=/srv"], "lets the guest read /srv"),
    (["-netdev", "user,id=a,guestfwd=tcp:10.0.2.100:1234-cmd:netcat 192.0.2.1 4321"],
     "runs netcat 192.0.2.1 4321 for each connection of the guest's"),
    (["-netdev", '{"type":"user","id":"a","guestfwd":[{"str":"tcp:10.0.2.100:1234-cmd:nc -l"}]}'],
     "runs nc -l for each connection of the guest's"),
    (["-smb", "/srv"], "runs smbd, which shares /srv with the guest"),
    (["-tftp", "/srv"], "lets the guest read /srv"),
    (["-incoming", "exec:gunzip -c vm.gz"], "runs gunzip -c vm.gz"),
    (["-incoming", "unix:/run/m"], "opens /run/m"),
    (["-chardev", "file,id=a,path=/tmp/out,logfile=/tmp/log"], "writes /tmp/out; writes /tmp/log"),
    (["-serial", "file:/tmp/out"], "writes /tmp/out"),
    (["-monitor", "pipe:/tmp/p"], "opens /tmp/p"),
    (["-chardev", '{"id":"a","backend":{"type":"file","data":{"out":"/tmp/o","logfile":"/tmp/l"}}}'],
     "writes /tmp/o; writes /tmp/l"),
    (["-chardev", '{"id":"a","backend":{"type":"serial","data":{"device":"/dev/ttyS0"}}}'], "opens /dev/ttyS0"),
    (["-virtfs", "local,path=/srv,mount_tag=a,security_model=none"], "shares /srv with the guest"),
    (["-object", "filter-dump,id=a,netdev=b,file=/tmp/n.pcap"], "writes /tmp/n.pcap"),
    (["-object", "secret,id=a,file=/etc/key"], "reads /etc/key"),
    (["-object", "rng-random,id=a,filename=/dev/hwrng"], "opens /dev/hwrng"),
    (["-plugin", "/lib/p.so"], "loads /lib/p.so into QEMU"),
    (["-plugin", "plugin=/lib/p.so"], "loads /lib/p.so into QEMU"),
    (["-runas", "nobody"], "changes QEMU's user to nobody"),
    (["-run-with", "user=nobody,chroot=/jail"],
     "changes QEMU's user to nobody; changes QEMU's root folder to /jail"),
    (["-chroot", "/jail"], "changes QEMU's root folder to /jail"),
    (["-readconfig", "/etc/vm.cfg"], "reads /etc/vm.cfg"),
    (["-writeconfig", "/etc/vm.cfg"], "writes /etc/vm.cfg"),
    (["-pidfile", "/run/vm.pid"], "writes /run/vm.pid"),
    (["-D", "/tmp/log"], "writes /tmp/log"),
    (["-trace", "events=/tmp/e,file=/tmp/t"], "writes /tmp/t; reads /tmp/e"),
    (["-smbios", "file=/tmp/s"], "reads /tmp/s"),
    (["-acpitable", "data=/tmp/slic"], "reads /tmp/slic"),
    (["-tpmdev", "passthrough,id=a,path=/dev/tpm0"], "opens /dev/tpm0"),
]


def remark(words: list[str]) -> str | None:
    return host_access(Word(parse_options(["qemu", *words]).options[0]))


@pytest.mark.parametrize(("words", "expected"), MARKED)
def test_word_that_reaches_the_host_is_marked(words: list[str], expected: str) -> None:
    assert remark(words) == expected


def test_every_row_is_hit() -> None:
    words = [Word(parse_options(["qemu", *words]).options[0]) for words, _ in MARKED]
    assert [row.text for row in ROWS_OF_ACCESS if not any(list(row.read(word)) for word in words)] == []


@pytest.mark.parametrize(
    "words",
    [
        ["-netdev", "tap,id=a,ifname=t,script=no,downscript=no"],
        ["-netdev", "tap,id=a,fd=3"],
        ["-netdev", "user,id=a,hostfwd=tcp::2222-:22"],
        ["-incoming", "defer"],
        ["-chardev", "socket,id=a,path=/run/s"],
        ["-object", "rng-random,id=a,filename=/dev/urandom"],
        ["-m", "512"],
    ],
)
def test_word_that_stays_with_the_guest_is_not_marked(words: list[str]) -> None:
    assert remark(words) is None


def test_report_has_the_remark_and_only_where_there_is_one() -> None:
    report = convert_command_line(["qemu-system-x86_64", "-serial", "file:/tmp/out", "-S"]).report
    marks = {entry["text"]: entry.get("host") for entry in report["arguments"]}
    assert marks["-serial file:/tmp/out"] == "writes /tmp/out"
    assert not any("host" in entry for entry in report["arguments"] if entry["text"] == "-S")
