"""The subjects outside <devices>, in the order in which they are asked.

The first come before the devices and only collect; the last come after them,
when it is known what is there to boot from and how much memory is in slots.
"""

from __future__ import annotations

from collections.abc import Callable

from virtsnap.convert.draft import Draft
from virtsnap.convert.head import (
    boot,
    clock,
    cpu,
    features,
    firmware,
    firmware_packages,
    launch_security,
    memory,
    numa,
    process,
    sysinfo,
    topology,
)
from virtsnap.convert.head.globals import convert_globals


def _finish_head(draft: Draft) -> None:
    draft.head.finish(draft.root, draft.templates)


HEAD_SUBJECTS: tuple[Callable[[Draft], None], ...] = (
    process.convert_process,
    topology.convert_topology,
    features.convert_features,
    memory.convert_memory,
    numa.convert_numa,
    cpu.convert_cpu,
    clock.convert_clock,
    boot.convert_kernel,
    sysinfo.convert_sysinfo,
    firmware.convert_firmware,
    convert_globals,
    launch_security.convert_launch_security,
)
FINISHING_SUBJECTS: tuple[Callable[[Draft], None], ...] = (
    boot.convert_boot,
    memory.count_memory_devices,
    firmware_packages.write_features,
    _finish_head,
)
