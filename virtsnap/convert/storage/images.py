"""One image of the command line as a source of libvirt's, for firmware and its store: what has no disk."""

from __future__ import annotations

from dataclasses import dataclass

from virtsnap.convert.claims import Options
from virtsnap.convert.draft import Draft
from virtsnap.convert.ledger import NotSayable
from virtsnap.convert.storage.disks import Plan, plan_backend
from virtsnap.convert.storage.drives import Drive
from virtsnap.convert.storage.storage_parts import StorageParts
from virtsnap.domain_xml.templates import Element


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image, understood but not claimed yet: call `claim` when it stands in the domain.

    `path` is the file or device, None for an image on the network; `format` is
    libvirt's word; `source` the <source> that a disk would have, `type` the
    disk's type; `plan.holes` hold cache and the like.
    """

    path: str | None
    type: str
    format: str
    readonly: bool
    source: Element
    plan: Plan

    def claim(self, draft: Draft, *elements: Element) -> None:
        """Claim the -drive or -blockdev words, which stand in `elements` now."""
        self.plan.claims.commit(*elements)
        for warning in self.plan.claims.warnings:
            draft.warn(warning)


def read_image(draft: Draft, id_: str) -> Image:
    """Read the image of a drive or node; raises NotSayable where libvirt has no word for a part of it."""
    backend = draft.part(StorageParts).start(draft).backend(id_)
    if backend.empty:
        raise NotSayable("there is no image")
    plan = plan_backend(draft, backend, Options((), backend.claims), "disk")
    source = plan.source
    assert source is not None, "a backend that is not empty has a source"
    return Image(
        path=source.element.get("file") or source.element.get("dev"), type=source.type,
        format=source.format or "raw",
        readonly="readonly" in plan.holes, source=source.element, plan=plan,
    )


def drives_of(draft: Draft, interface: str) -> list[Drive]:
    """Give the -drive words of an interface (`pflash`) with their units and ids, in order."""
    parts = draft.part(StorageParts)
    parts.start(draft)
    return [drive for drive in parts.drives if drive.interface == interface]
