"""The only place that talks to libvirt, qemu-img and QMP.

`connect(uri)` opens a `Host`; `Host.domain(name)` finds a `Domain`. libvirt
ships no types, so its Any ends here: what leaves this package is typed, and
every error that leaves it is one of `virtsnap.errors`.
"""

from virtsnap.host.domain import Domain, Power, SnapshotObject
from virtsnap.host.hypervisor import Host, connect

__all__ = ["Domain", "Host", "Power", "SnapshotObject", "connect"]
