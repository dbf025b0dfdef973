"""What is not needed is not loaded: the shell's completion and --version must be quick."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("code", [
    "import virtsnap",
    "from virtsnap.cli.main import main; main(['--version'])",
    "import virtsnap.cli.main",
])
def test_neither_libvirt_nor_lxml_is_loaded(code: str) -> None:
    check = f"import sys\n{code}\nassert not {{'libvirt', 'lxml'}} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_a_conversion_asks_libvirt_for_its_version_and_loads_no_more_of_the_host() -> None:
    check = (
        "import sys\nfrom virtsnap.cli.main import main\nmain(['-q', 'convert', '--', 'qemu-system-x86_64'])\n"
        "assert not {'virtsnap.host.domain', 'virtsnap.snapshots', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_a_command_that_only_passes_by_loads_little() -> None:
    check = "import sys, virtsnap.cli.virsh.front\nassert not {'lxml', 'click', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_the_api_is_found_when_it_is_used() -> None:
    import virtsnap

    assert callable(virtsnap.connect)
    assert "<domain" in virtsnap.convert_command_line(["qemu-system-x86_64"]).xml
    with pytest.raises(AttributeError):
        virtsnap.nothing  # noqa: B018
