"""What is taken out of a domain's metadata is out of every definition, whatever happens to it meanwhile."""

from __future__ import annotations

import libvirt
import pytest

from virtsnap.domain_xml.live import has_metadata
from virtsnap.host.domain import Domain

URI = "urn:virtsnap:test"
WITH = f"<domain><metadata><a:claim xmlns:a='{URI}'/></metadata></domain>"
WITHOUT = f"<domain><metadata><a:other xmlns:a='urn:x'>{URI}</a:other></metadata></domain>"


class Handle:
    """A persistent domain as libvirt keeps it; `happens` is what befalls it when its definition is written."""

    def __init__(self, *, runs: bool, happens: str = "nothing") -> None:
        self.persistent, self.live, self.happens = WITH, WITH if runs else None, happens

    def name(self) -> str:
        return "vm"

    def UUIDString(self) -> str:
        return "00000000-0000-4000-8000-000000000000"

    def isPersistent(self) -> int:
        return 1

    def isActive(self) -> int:
        return int(self.live is not None)

    def XMLDesc(self, flags: int) -> str:
        inactive = flags & libvirt.VIR_DOMAIN_XML_INACTIVE or self.live is None
        return self.persistent if inactive else str(self.live)

    def setMetadata(self, _kind: int, xml: str | None, _key: str, uri: str, flags: int) -> int:
        assert (xml, uri) == (None, URI)
        if flags == libvirt.VIR_DOMAIN_AFFECT_LIVE:
            if self.live is None:
                raise libvirt.libvirtError("domain is not running")
            self.live = WITHOUT
            return 0
        if self.happens == "it starts":
            self.live = self.persistent
        self.persistent = WITHOUT
        if self.happens == "it ends":
            self.live = None
        return 0


@pytest.mark.parametrize(("runs", "happens"), [
    (True, "nothing"), (False, "nothing"), (False, "it starts"), (True, "it ends"),
])
def test_metadata_is_out_of_both_definitions(runs: bool, happens: str) -> None:
    handle = Handle(runs=runs, happens=happens)
    Domain(handle).drop_metadata(prefix="a", uri=URI)
    assert not has_metadata(handle.persistent, URI)
    assert handle.live is None or not has_metadata(handle.live, URI)


def test_a_namespace_that_is_only_spoken_of_is_not_there() -> None:
    assert has_metadata(WITH, URI)
    assert not has_metadata(WITHOUT, URI)
    assert not has_metadata(WITH, URI + "s")
