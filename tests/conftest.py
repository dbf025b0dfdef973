"""What all tests share: the option that writes golden cases anew, and a guest and a host for those that ask."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.guest.build import GuestFiles, build_guest
from tests.host.accelerator import DomainType, domain_type
from tests.host.guests import GuestFarm
from tests.host.private_libvirtd import PrivateLibvirtd

# The machines are noisy: how long one example takes says nothing. A hang is caught by the suite's own limit.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="write the golden cases anew; read the diff")
    parser.addoption(
        "--on-host", metavar="SUITE", help="run the tests on a host that `make hosts` built, such as trixie"
    )
    parser.addoption(
        "--whole", action="store_true", help="run every case of the large matrices, not the sample alone"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: a case that only `--whole` runs (`make test-whole`)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only `--whole` runs, unless it is asked for by its name."""
    if config.getoption("--whole") or any("[" in word for word in config.args):
        return
    left_out = [item for item in items if item.get_closest_marker("whole")]
    items[:] = [item for item in items if not item.get_closest_marker("whole")]
    config.hook.pytest_deselected(items=left_out)


def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole test run on another host, with that host's Python and client library."""
    suite = config.getoption("--on-host")
    if suite is None:
        return
    words = list(config.invocation_params.args)
    while "--on-host" in words:
        at = words.index("--on-host")
        del words[at : at + 2]
    words = [word for word in words if not word.startswith("--on-host=")]
    tool = Path(__file__).resolve().parents[1] / "tools" / "on-host"
    # In place of this process: whoever ends it would leave a child running, as process 1 of its own namespace.
    os.execv(tool, [str(tool), suite, ".venv/bin/python", "-m", "pytest", *words])


def pytest_report_header() -> list[str]:
    """Name what the tests run on."""
    return _versions()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name it at the end too, where it is looked for after a long run."""
    terminalreporter.write_line("ran on " + ", ".join(_versions()))


def _versions() -> list[str]:
    found = []
    for words in (["libvirtd", "--version"], ["qemu-system-x86_64", "--version"]):
        try:
            answer = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        except OSError:
            answer = ""
        found.append(answer.partition("\n")[0] or f"{words[0]}: not installed")
    return found


@pytest.fixture(scope="session")
def guest_files() -> GuestFiles:
    """The quick guest: virtio, IDE, NVMe."""
    return build_guest()


@pytest.fixture(scope="session")
def all_drivers_guest_files() -> GuestFiles:
    """The guest that also knows AHCI, USB and Intel's network cards; boots in twice the time."""
    return build_guest("full")


@pytest.fixture(scope="session")
def accelerator(guest_files: GuestFiles) -> DomainType:
    """`kvm` where it really boots a guest, else `qemu`."""
    return domain_type(guest_files)


@pytest.fixture(scope="session")
def host() -> Iterator[PrivateLibvirtd]:
    """A private libvirtd whose QEMU runs as who we are; one for the whole test run."""
    with PrivateLibvirtd() as host:
        yield host


@pytest.fixture(scope="session")
def host_uri(host: PrivateLibvirtd) -> str:
    """The URI of `host`, for connecting and for `virtsnap -c`."""
    return host.uri


@pytest.fixture(scope="session")
def default_user_host() -> Iterator[PrivateLibvirtd]:
    """A private libvirtd with qemu.conf's default user and ownership rules."""
    if os.geteuid() != 0:
        pytest.skip("only root can run QEMU as another user: run this test as root")
    with PrivateLibvirtd(default_user=True) as host:
        yield host


@pytest.fixture
def farm(host: PrivateLibvirtd, guest_files: GuestFiles, accelerator: DomainType) -> Iterator[GuestFarm]:
    """Makes domains on `host`, and removes them after the test."""
    with GuestFarm(host, guest_files, accelerator) as farm:
        yield farm


@pytest.fixture
def default_user_farm(
    default_user_host: PrivateLibvirtd, guest_files: GuestFiles, accelerator: DomainType
) -> Iterator[GuestFarm]:
    """Makes domains on `default_user_host`, and removes them after the test."""
    with GuestFarm(default_user_host, guest_files, accelerator) as farm:
        yield farm
