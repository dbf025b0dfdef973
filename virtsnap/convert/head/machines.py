"""The machine families: which machine types belong to one, and what QEMU builds into it.

Each family has a template of the same name in domain_templates/machines/. The
rows here carry what is not XML: where built-in PCI functions sit, which disk
interface and network card QEMU takes when the command line names none.
Source: QEMU's hw/*/ machine class definitions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

# QEMU's target name -> libvirt's arch, where they differ.
LIBVIRT_ARCH: Mapping[str, str] = {
    "i386": "i686",
    "arm": "armv7l",
    "or1k": "openrisc",
    "hppa": "parisc",
    "ppc64le": "ppc64le",
}
DEFAULT_MACHINE: Mapping[str, str] = {
    "x86_64": "pc", "i686": "pc", "ppc64": "pseries", "ppc": "g3beige", "s390x": "s390-ccw-virtio",
    "sparc": "SS-5", "sparc64": "sun4u", "m68k": "mcf5208evb", "mips": "malta", "mipsel": "malta",
    "mips64": "malta", "mips64el": "malta", "sh4": "shix", "alpha": "clipper", "parisc": "hppa",
    "openrisc": "or1k-sim", "riscv32": "spike", "riscv64": "spike", "loongarch64": "virt", "xtensa": "sim",
    "microblaze": "petalogix-s3adsp1800", "microblazeel": "petalogix-s3adsp1800",
}


@dataclass(frozen=True, kw_only=True)
class MachineFamily:
    """One family of machine types.

    `pattern` matches the machine type, `arches` are libvirt's names (empty:
    any). `pci_root` is the qdev name of the first PCI bus, None where there is
    no PCI. `builtin_functions` are the (slot, function) pairs on it that the
    machine itself takes. `drive_units` is the number of drives on an IDE bus.
    """

    name: str
    pattern: str
    arches: frozenset[str] = frozenset()
    pci_root: str | None = None
    pci_root_model: str | None = None
    builtin_functions: Mapping[tuple[int, int], str] = field(default_factory=dict)
    first_slot: int = 0
    default_drive_if: str = "ide"
    drive_units: int = 2
    default_nic: str | None = None
    default_vga: str | None = None
    default_options: tuple[tuple[str, ...], ...] = ()
    usb_option_slot: tuple[int, int] | None = None


X86 = frozenset({"x86_64", "i686"})
ARM = frozenset({"aarch64", "armv7l"})

FAMILIES: tuple[MachineFamily, ...] = (
    MachineFamily(
        name="q35", pattern=r"q35|pc-q35-.*|q35\+.*", arches=X86, pci_root="pcie.0", pci_root_model="pcie-root",
        builtin_functions={(0, 0): "host bridge", (31, 0): "LPC", (31, 2): "SATA", (31, 3): "SMBus"},
        drive_units=1, default_nic="e1000e", default_vga="std",
    ),
    MachineFamily(name="microvm", pattern=r"microvm.*", arches=X86, default_drive_if="ide"),
    MachineFamily(name="isapc", pattern=r"isapc", arches=X86, default_nic="ne2k_isa", default_vga="cirrus"),
    MachineFamily(name="xenpv", pattern=r"xenpv", arches=X86),
    MachineFamily(
        name="pc", pattern=r"pc|pc-i440fx-.*|pc-[0-9].*|pc\+.*|rhel[0-9].*|xenfv.*", arches=X86, pci_root="pci.0",
        pci_root_model="pci-root",
        builtin_functions={(0, 0): "host bridge", (1, 0): "ISA bridge", (1, 1): "IDE", (1, 3): "power management"},
        default_nic="e1000", default_vga="std", usb_option_slot=(1, 2),
    ),
    MachineFamily(
        name="virt", pattern=r"virt|virt-[0-9].*|virt-rhel.*", arches=ARM | {"riscv32", "riscv64", "loongarch64"},
        pci_root="pcie.0", pci_root_model="pcie-root", builtin_functions={(0, 0): "host bridge"},
        default_drive_if="virtio", default_nic="virtio-net-pci",
    ),
    MachineFamily(
        name="pseries", pattern=r"pseries.*|spapr.*", arches=frozenset({"ppc64", "ppc64le"}), pci_root="pci.0",
        pci_root_model="pci-root", default_drive_if="scsi", default_nic="spapr-vlan", default_vga="std",
    ),
    MachineFamily(
        name="s390-ccw-virtio", pattern=r"s390-ccw-virtio.*|s390", arches=frozenset({"s390x"}),
        pci_root="pci.0", pci_root_model="pci-root", default_drive_if="virtio", default_nic="virtio-net-ccw",
    ),
    MachineFamily(name="board", pattern=r".*", default_drive_if="ide", pci_root="pci"),
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine of one command line: libvirt's arch, QEMU's machine type, the accelerator, the family."""

    arch: str
    type: str
    accel: str
    family: MachineFamily

    @property
    def is_x86(self) -> bool:
        """Whether this is a PC of any kind."""
        return self.arch in X86

    def is_since(self, version: tuple[int, int]) -> bool:
        """Tell whether the machine type is surely of this QEMU version or later; an alias is the newest."""
        bare = self.type.partition("+")[0]
        found = re.search(r"-([0-9]+)\.([0-9]+)$", bare)
        if found is None:
            return bare in {"pc", "q35", "virt", "microvm", "pseries"}
        return (int(found[1]), int(found[2])) >= version


def arch_of_emulator(emulator: str, *, host_arch: str = "x86_64") -> str:
    """Give libvirt's arch for an emulator's file name; `kvm`, `qemu-kvm` and `qemu` are the host's."""
    name = PurePath(emulator).name
    found = re.match(r"qemu(?:-\w+)*?-system-([a-z0-9_]+)", name)
    target = found.group(1) if found else host_arch
    return LIBVIRT_ARCH.get(target, target)


def family_of(arch: str, machine_type: str) -> MachineFamily:
    """Give the family of a machine type; every type has one, `board` at the least."""
    for family in FAMILIES:
        if (not family.arches or arch in family.arches) and re.fullmatch(family.pattern, machine_type):
            return family
    return FAMILIES[-1]


# What boards have without -m, in MiB; all others 128. Source: mc->default_ram_size of each board in QEMU's hw/.
BOARD_MEMORY_MIB: tuple[tuple[str, str, int], ...] = (
    ("loongarch64", r"virt", 1024),
    ("parisc", r".*", 512),
    ("ppc", r"pegasos2|sam460ex", 512),
    ("ppc64", r"powernv.*", 1024),
    ("aarch64", r"sbsa-ref|raspi3b|ast2700.*", 1024),
    ("aarch64", r"raspi4b", 2048),
    ("", r"orangepi-pc|raspi2b|ast2600-evb|rainier-bmc|npcm7.*", 1024),
    ("", r"raspi0|raspi1ap|raspi3ap|ast2500-evb|romulus-bmc|witherspoon-bmc", 512),
    ("riscv64", r"microchip-icicle-kit", 1537),
)


def default_memory_kib(machine: Machine) -> int:
    """Give the memory that QEMU gives a board without -m."""
    for arch, pattern, size in BOARD_MEMORY_MIB:
        if arch in ("", machine.arch) and re.fullmatch(pattern, machine.type):
            return size * 1024
    return 128 * 1024
