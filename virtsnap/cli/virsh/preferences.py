"""virsh's global options, as far as they say something to the verbs that are answered here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """The global options. `uri` None is libvirt's own choice."""

    uri: str | None = None
    quiet: bool = False
    readonly: bool = False
    timing: bool = False
    timeout_s: float | None = None
    escape: str = "^]"
