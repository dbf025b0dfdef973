"""kill -9 around every step on a domain that is off and keeps UEFI variables and a TPM: they follow the disks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from lxml import etree

import virtsnap.host
from tests.host.consistency import disagreements
from tests.host.guests import GuestFarm
from tests.host.private_libvirtd import PrivateLibvirtd

# The number of steps, tidying up included, and the step from which on it is finished.
OPERATIONS = {"save c": (6, 5), "save b": (9, 5), "load a": (8, 4), "rm a": (2, 1)}
SAMPLE = {("save c", "after", 3), ("load a", "after", 3), ("load a", "after", 4), ("load a", "after", 5)}
MATRIX = [
    pytest.param(words, when, step, id=f"{words.replace(' ', '-')}-{when}-{step}",
                 marks=() if (words, when, step) in SAMPLE else pytest.mark.whole)
    for words, (steps, _) in OPERATIONS.items() for step in range(1, steps + 1) for when in ("before", "after")
]


class OffWithState:
    """A domain that is never started; its UEFI variables, TPM and disk hold a word each."""

    def __init__(self, farm: GuestFarm, host: PrivateLibvirtd) -> None:
        self.uri, self._host, self._farm = farm.uri, host, farm
        self.name = farm.new_name("off")
        self.folder = farm.new_folder(self.name)
        disk = farm.new_disk(self.folder, "disk0", size="1M")
        self.domain = farm.connection.defineXML(f"""
          <domain type='{farm.domain_type}'><name>{self.name}</name><memory unit='MiB'>64</memory>
            <os><type arch='x86_64' machine='q35'>hvm</type>
              <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
              <nvram>{self.folder}/vars.fd</nvram></os><features><acpi/></features>
            <devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
                <target dev='vda' bus='virtio'/></disk>
              <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices>
          </domain>""")
        farm.adopt(self.name)
        # As root the daemon's /var/lib/libvirt is a folder of its own.
        self._tpm = host.tpm_folder(self.domain.UUIDString()) / "tpm2"
        self._tpm.mkdir(parents=True)

    def put(self, word: str) -> None:
        """Write a word into all three."""
        (self.folder / "vars.fd").write_text(word)
        (self._tpm / "tpm2-00.permall").write_text(word)
        write = f"write -q -P {ord(word)} 0 512"
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, self._disk()], check=True)

    def words(self) -> tuple[str, str, str]:
        """Read the three."""
        shown = subprocess.run(["qemu-io", "-f", "qcow2", "-c", "read -v 0 1", self._disk()], check=True,
                               capture_output=True, text=True).stdout
        return (
            (self.folder / "vars.fd").read_text(), (self._tpm / "tpm2-00.permall").read_text(),
            chr(int(shown.partition(":")[2].split()[0], 16)),
        )

    def _disk(self) -> str:
        xml = self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        return str(etree.fromstring(xml.encode()).xpath("string(devices/disk/source/@file)"))

    def virtsnap(self, *words: str, program: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run a verb where it sees the daemon's folders."""
        inline = ("-c", "import sys; from virtsnap.cli.main import main; sys.exit(main())")
        argv, environment = self._host.inside([sys.executable, *(program or inline), "-c", self.uri, *words])
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                              env=environment)
        return done.returncode, done.stdout + done.stderr

    def verb(self, words: str, *more: str, program: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run `save c` or the like; a load leaves the domain off."""
        verb, name = words.split()
        as_saved = ("--as-saved",) if verb == "load" else ()
        return self.virtsnap(verb, self.name, name, *as_saved, *more, program=program)

    def names(self) -> set[str]:
        """Name the snapshots."""
        return {snapshot.getName() for snapshot in self.domain.listAllSnapshots()}

    def disagreements(self) -> list[str]:
        """See `tests.host.consistency`."""
        with virtsnap.host.connect(self.uri) as host:
            return disagreements(host, self.name, beside=[self.folder])


@pytest.fixture
def off(module_farm: GuestFarm, host: PrivateLibvirtd) -> Iterator[OffWithState]:
    """A domain with the snapshots a and b, and `n` for now."""
    made = OffWithState(module_farm, host)
    for name in ("a", "b"):
        made.put(name)
        code, said = made.verb(f"save {name}")
        assert code == 0, said
    made.put("n")
    yield made
    assert made.disagreements() == []


@pytest.mark.parametrize(("words", "when", "step"), MATRIX)
def test_what_is_beside_the_disks_follows_them(off: OffWithState, words: str, when: str, step: int) -> None:
    code, said = off.verb(words, program=("-m", "tests.faults.killed", when, str(step)))
    assert code == -signal.SIGKILL or code == 128 + signal.SIGKILL, said
    code, said = off.virtsnap("recover", off.name)
    assert code == 0, said
    assert off.disagreements() == []
    finished = "was finished" in said
    verb, name = words.split()
    _, decisive = OPERATIONS[words]
    if verb != "load":
        # A load has no guest to stop here: once its overlays are there it can be finished.
        assert finished is (step > decisive or (step == decisive and (when == "after" or verb == "rm"))), said
    expected = {"a": "a", "b": "b"}
    now = "n"
    if finished and verb == "save":
        expected[name] = "n"
    elif finished and verb == "rm":
        del expected[name]
    elif finished:
        now, expected = "a", {"a": "a"}
    assert off.words() == (now, now, now)
    assert off.names() == expected.keys()
    for name, word in expected.items():
        code, said = off.virtsnap("load", off.name, name, "--as-saved", "--keep-newer")
        assert (code, off.words()) == (0, (word, word, word)), said


def test_every_step_is_in_the_matrix(off: OffWithState) -> None:
    for words, (steps, _) in OPERATIONS.items():
        code, said = off.verb(words, program=("-m", "tests.faults.killed", "before", str(steps + 1)))
        assert code == 0, f"{words} has more than {steps} steps: {said}"
        code, said = off.verb("save b")
        assert code == 0, said


def test_state_that_was_not_there_at_the_save_is_not_there_after_the_load(off: OffWithState) -> None:
    (off.folder / "vars.fd").unlink()
    assert off.verb("save new")[0] == 0
    off.put("m")
    code, said = off.verb("load new")
    assert code == 0, said
    assert not (off.folder / "vars.fd").exists()  # libvirt makes it from its template at the next start
    assert Path(off.folder / "vars.fd").parent.exists()


def test_a_load_that_fails_puts_back_what_was_beside_the_disks(off: OffWithState) -> None:
    code, said = off.verb("load a", program=("-m", "tests.faults.failing", "define"))
    assert code == 8, said
    assert off.words() == ("n", "n", "n")
