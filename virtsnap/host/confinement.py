"""libvirt's XML about a host becomes what confines its QEMU, and what RAM in a file needs there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

# What has to be added for the engine `instant`, by libvirt's name of the security model
RAM_RULES: Mapping[str, str] = {
    "apparmor": "in /etc/apparmor.d/local/abstractions/libvirt-qemu the rules "
                "`owner /dev/shm/qemu_back_mem.virtsnap-ram.* rw,` (another folder with `create --ram-dir`) and "
                "`owner /**/virtsnap-*/*.ram rw,`",
    "selinux": "the type svirt_image_t for the folder of the disks and for that of the RAM (`create --ram-dir "
               "DIR`): `semanage fcontext -a -t svirt_image_t 'DIR(/.*)?'`, then `restorecon -RF DIR`; where the "
               "kernel still denies `map`, by `semodule -i FILE.cil` the module "
               "`(allow svirt_t svirt_image_t (file (map)))`",
}
_NAMES = {"apparmor": "AppArmor", "selinux": "SELinux"}


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """The security models in force, by libvirt's names, and QEMU's user and group; None is who runs libvirt."""

    models: tuple[str, ...]
    user: tuple[int, int] | None


def read_confinement(capabilities: str) -> Confinement:
    """Read libvirt's capabilities. On failure: etree.XMLSyntaxError."""
    models, user = [], None
    for model in etree.fromstring(capabilities.encode()).iterfind("host/secmodel"):
        name = model.findtext("model") or ""
        models.append(name)
        label = model.findtext("baselabel") or ""
        if name == "dac":
            numbers = [number.lstrip("+") for number in label.split(":")]
            if len(numbers) == 2 and all(number.isdigit() for number in numbers):
                user = int(numbers[0]), int(numbers[1])
    return Confinement(models=tuple(models), user=user)


def needs_of_ram_in_files(found: Confinement) -> tuple[str, ...]:
    """Say what RAM in a file needs on that host, each as a sentence without its beginning."""
    who = "QEMU's user" if found.user is None else f"QEMU's user ({found.user[0]}:{found.user[1]})"
    return (
        f"whoever saves is root or {who}, to whom the copies of the RAM belong (0600)",
        *(f"under {_NAMES[model]} {rule}" for model, rule in RAM_RULES.items() if model in found.models),
    )
