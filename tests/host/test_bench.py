"""`virtsnap bench` for real: a small guest through one engine of each family, and one that loses data."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from tests.guest.build import GuestFiles
from tests.host.accelerator import DomainType
from tests.host.private_libvirtd import PrivateLibvirtd
from virtsnap.cli.main import main
from virtsnap.host.machine_facts import qemu_version


def test_a_short_run_tells_loads_from_losses(
    host: PrivateLibvirtd, guest_files: GuestFiles, accelerator: DomainType, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = "raw-plain" if qemu_version("qemu-system-x86_64") < (11, 0) else "raw-mapped"  # see the rows
    with tempfile.TemporaryDirectory(prefix="b-", dir=host.work) as folder:
        Path(folder).chmod(0o711)
        code = main([
            "-c", host.uri, "-q", "--json", "bench", "--kernel", str(guest_files.kernel),
            "--initrd", str(guest_files.initramfs), "--append", guest_files.kernel_arguments,
            "--disk", str(guest_files.disk), "--accel", "kvm" if accelerator == "kvm" else "tcg",
            "--engine", "instant", "--engine", "instant-again", "--engine", "restore",
            "--engine", raw, "--engine", "virsh-save",
            "--size", "256:32", "--rounds", "2", "--sizes", "256:32", "--loads", "2", "--dir", folder,
            "--output", str(tmp_path / "out"), "--no-charts",
        ])  # fmt: skip
        assert list(Path(folder).iterdir()) == []
    answer = json.loads(capsys.readouterr().out)
    assert code == 0, answer
    compared = [sample for sample in answer["samples"] if sample["scenario"] == "engines"]
    assert len(compared) == 2 * 5 - 1, "what loses something has one round"
    samples = {sample["engine"]: sample for sample in compared if sample["cycle"] == 0}
    assert {name: (sample["error"], sample["lost"]) for name, sample in samples.items()} == {
        "instant": (None, []), "instant-again": (None, []), "restore": (None, []), raw: (None, []),
        "virsh-save": (None, ["disk"]),
    }
    of_sizes = [sample for sample in answer["samples"] if sample["scenario"] == "sizes"]
    assert len(compared) + len(of_sizes) == len(answer["samples"])
    assert sorted((sample["engine"], sample["cycle"]) for sample in of_sizes) == sorted(
        (name, cycle) for name in ("instant", "restore", raw) for cycle in (0, 1)
    )
    assert [(sample["error"], sample["lost"]) for sample in of_sizes] == [(None, [])] * len(of_sizes)
    assert all(sample["answer_s"] > 0.02 for sample in of_sizes)
    assert all((sample["save_s"] is None) is (sample["cycle"] == 1) for sample in of_sizes), "saved once"
    for name, sample in samples.items():
        assert 0 < sample["pause_s"] <= sample["save_s"]
        assert sample["silence_s"] > 0.02, "the pulse stood still meanwhile"
        assert sample["answer_s"] > 0.02
        # A save after a load shares the RAM file of the snapshot before
        assert (sample["space_bytes"] > 32 << 20) is (name != "instant-again")
    assert set(samples["restore"]["load_phases_s"]) >= {"stop", "restore", "resume"}
    assert "**lost: disk**" in (tmp_path / "out" / "report.md").read_text()
