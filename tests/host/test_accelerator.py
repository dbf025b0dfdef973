"""The domain type is what a guest really booted with, asked once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.guest.build import GuestFiles
from tests.host import accelerator
from tests.host.accelerator import boots_with, domain_type


def test_tcg_boots_the_guest(guest_files: GuestFiles) -> None:
    assert boots_with("tcg", guest_files, timeout_s=60)


def test_kernel_that_gets_nowhere_does_not_boot(guest_files: GuestFiles, tmp_path: Path) -> None:
    broken = tmp_path / "vmlinuz"
    broken.write_bytes(bytes(1 << 16))
    assert not boots_with("tcg", replace(guest_files, kernel=broken), timeout_s=3)


def test_answer_is_kept_until_the_machine_boots_again(
    guest_files: GuestFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def boots(*_: object, timeout_s: float) -> bool:
        asked.append(timeout_s)
        return True

    monkeypatch.setattr(accelerator, "boots_with", boots)
    monkeypatch.setattr(accelerator, "KVM", Path("/dev/null"))
    assert [domain_type(guest_files, cache=tmp_path) for _ in range(2)] == ["kvm", "kvm"]
    assert len(asked) == 1


def test_machine_without_dev_kvm_is_not_probed(guest_files: GuestFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "KVM", Path("/nonexistent"))
    assert domain_type(guest_files, cache=Path("/nonexistent")) == "qemu"
