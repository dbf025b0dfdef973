"""virtsnap: a QEMU command line becomes a libvirt domain with named disk+memory snapshots."""

from __future__ import annotations

__version__ = "0.1.0"
