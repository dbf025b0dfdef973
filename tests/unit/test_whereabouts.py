"""Where the hypervisor's files are is told by the URI, unless VIRTSNAP_FILES says otherwise."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import libvirt
import pytest

from virtsnap.errors import UnsupportedError, UsageError
from virtsnap.host.hypervisor import Host, Whereabouts, whereabouts_by
from virtsnap.host.local_files import LocalFiles
from virtsnap.host.volume_files import VolumeFiles


def handle(uri: str) -> Any:
    found = MagicMock()
    found.getURI.return_value = uri
    found.getLibVersion.return_value = 9_000_000
    return found


@pytest.mark.parametrize(("uri", "told", "kind"), [
    ("qemu:///system", None, LocalFiles), ("qemu:///system", "libvirt", VolumeFiles),
    ("qemu+ssh://far/system", None, VolumeFiles), ("qemu+ssh://far/system", "local", LocalFiles),
])
def test_the_uri_decides_and_can_be_overruled(uri: str, told: Whereabouts | None, kind: type) -> None:
    host = Host(handle(uri), files=told)
    assert isinstance(host.files, kind)
    assert host.is_local is (kind is LocalFiles)


def test_the_variable_is_read_and_nonsense_refused() -> None:
    assert whereabouts_by({}) is None
    assert whereabouts_by({"VIRTSNAP_FILES": ""}) is None
    assert whereabouts_by({"VIRTSNAP_FILES": "libvirt"}) == "libvirt"
    with pytest.raises(UsageError, match="none of local, libvirt"):
        whereabouts_by({"VIRTSNAP_FILES": "remote"})


def test_a_hypervisor_without_a_storage_driver_is_refused_with_what_it_needs() -> None:
    far = handle("qemu+ssh://far/system")
    far.numOfStoragePools.side_effect = libvirt.libvirtError("no storage driver")
    with pytest.raises(UnsupportedError, match=r"far/system: its files can only be reached") as caught:
        _ = Host(far).files
    assert "libvirt-daemon-driver-storage" in str(caught.value.hint)
