"""A folder becomes a libvirtd that nobody else knows of, and then nothing again.

Unprivileged, XDG directories isolate a session daemon. As root libvirtd ignores
them, so it gets mount, network and PID namespaces with its five folders bound to
ours; the last process out ends them, and QEMU with them. Either way the socket is
in a folder that any process can reach by the URI:

    with PrivateLibvirtd() as host:
        subprocess.run(["virsh", "-c", host.uri, "list"])
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache" / "host"
SUPERVISOR = Path(__file__).with_name("libvirtd_supervisor.py")
KVM = Path("/dev/kvm")
DEFAULT_USER = "libvirt-qemu"
START_TIMEOUT_S = 60.0
PREFIX = "virtsnap-host-"

# What a container or a chroot cannot give, and what would reach out of the private daemon.
COMMON_QEMU_CONF = """\
security_driver = "none"
namespaces = []
cgroup_controllers = []
"""
# All as root, and no file changes its owner: tests read and write the same files.
RELAXED_QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
"""
LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
# A client with an event loop that nobody runs just then (a test that waits for a slow boot) answers no keepalive.
keepalive_interval = -1
log_level = 3
log_outputs = "3:file:{log}/libvirtd.log"
"""
VIRTLOGD_CONF = """\
log_level = 3
log_outputs = "3:file:{log}/virtlogd.log"
"""


class HostMissingError(Exception):
    """What a private libvirtd needs is not installed; the message says what to do."""


class PrivateLibvirtd:
    """A libvirtd of our own, running between `start` and `stop` (or as a context manager).

    `default_user=True` leaves user, group and ownership rules as qemu.conf has them
    by default (root only; files go to libvirt-qemu); else QEMU runs as who we are.

    uri     what a client connects to, from any process on this machine
    kvm_open  whether QEMU's user may open /dev/kvm at all
    work    a folder for disks, sockets and the like; QEMU's user can reach it
    folder  all that the daemon has: etc, run, lib, log; removed by `stop`
    """

    def __init__(self, *, default_user: bool = False) -> None:
        self._default_user = default_user
        self._as_root = os.geteuid() == 0
        if default_user and not self._as_root:
            raise HostMissingError("a libvirtd with qemu.conf's default user needs root: run the tests as root")
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._owner_lock: int | None = None

        self.kvm_open = KVM.exists() and (not default_user or _user_may_open(DEFAULT_USER, KVM))

    @property
    def folder(self) -> Path:
        """The daemon's own files."""
        assert self._folder is not None, "not started"
        return self._folder

    @property
    def work(self) -> Path:
        """Where tests put what QEMU shall open."""
        return self.folder / "work"

    @property
    def socket(self) -> Path:
        """The daemon's read-write socket."""
        return self.folder / "run" / ("libvirt-sock" if self._as_root else "libvirt/libvirt-sock")

    @property
    def uri(self) -> str:
        """The URI by which any process on this machine reaches the daemon."""
        return f"qemu+unix:///{'system' if self._as_root else 'session'}?socket={self.socket}"

    def start(self) -> None:
        """Start the daemons and wait until one answers; on failure nothing is left behind."""
        programs = _programs()
        _remove_abandoned()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_parent()))
        self._owner_lock = _hold(self._folder)
        try:
            self._fill_folder()
            self._process = subprocess.Popen(
                self._words(programs), stdin=subprocess.DEVNULL, start_new_session=True, env=self._environment()
            )
            self._wait_until_it_answers(programs["virsh"])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the daemons and every guest of theirs, and remove their files. Does nothing twice."""
        if self._process is not None:
            supervisor = self._children_named("supervisor")
            for pid in supervisor or [self._process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None
        if self._owner_lock is not None:
            os.close(self._owner_lock)
            self._owner_lock = None

    def daemon_pid(self) -> int:
        """Give the PID, as seen from here, of the libvirtd that runs now.

        When it is killed, the supervisor starts another within a tenth of a second.
        """
        (pid,) = self._children_named("libvirtd")
        return pid

    def inside(self, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Give words and environment that run a program where the daemon's own folders are what it sees."""
        if not self._as_root:
            return list(words), self._environment()
        # A mount namespace alone leads back to the file system outside of a chroot.
        enter = ["nsenter", "--mount", "--root", "--target", str(self.daemon_pid()), "--"]
        return [*enter, *words], self._environment()

    def run_folder(self) -> Path:
        """Say where, as seen from here, the daemon keeps what it knows of running guests."""
        return Path(f"/proc/{self.daemon_pid()}/root/run/libvirt") if self._as_root else self.folder / "run"

    def tpm_folder(self, uuid: str) -> Path:
        """Say where, as seen from here, the daemon has the TPM of a domain."""
        return self.folder / ("lib/swtpm" if self._as_root else "etc/libvirt/qemu/swtpm") / uuid

    def log(self) -> str:
        """Give what the daemon logged so far, warnings and worse."""
        texts = [path.read_text(errors="replace") for path in sorted((self.folder / "log").glob("*.log"))]
        # The node device driver asks every interface for features that the kernel may not have.
        return "".join(line for text in texts for line in text.splitlines(True) if "EthtoolIoctl" not in line)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def _fill_folder(self) -> None:
        self.folder.chmod(0o755)
        for name in ("run", "lib", "log", "work"):
            (self.folder / name).mkdir()
        etc = self.folder / "etc" if self._as_root else self.folder / "etc" / "libvirt"
        etc.mkdir(parents=True)
        relaxed = "" if self._default_user or not self._as_root else RELAXED_QEMU_CONF
        (etc / "qemu.conf").write_text(COMMON_QEMU_CONF + relaxed)
        # The rest of what it keeps while guests run stays in the namespace's /run: a tmpfs, as on any host.
        sockets = f'unix_sock_dir = "{self.socket.parent}"\n' if self._as_root else ""
        (etc / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(log=self.folder / "log") + sockets)
        (etc / "virtlogd.conf").write_text(VIRTLOGD_CONF.format(log=self.folder / "log"))
        self._cache.mkdir(parents=True, exist_ok=True)

    @property
    def _cache(self) -> Path:
        # QEMU's capabilities cost a second or more to probe; libvirt itself checks that they still hold.
        user = "default-user" if self._default_user else f"uid-{os.geteuid()}"
        return CACHE / f"cache-{user}"

    def _environment(self) -> dict[str, str]:
        if self._as_root:
            return {**os.environ, "LC_ALL": "C.UTF-8"}
        xdg = {"RUNTIME_DIR": "run", "CONFIG_HOME": "etc", "DATA_HOME": "lib"}
        return {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "XDG_CACHE_HOME": str(self._cache),
            **{f"XDG_{name}": str(self.folder / sub) for name, sub in xdg.items()},
        }

    def _words(self, programs: dict[str, str]) -> list[str]:
        mounts = {
            "/etc/libvirt": self.folder / "etc",
            "/var/lib/libvirt": self.folder / "lib",
            "/var/cache/libvirt": self._cache,
            "/var/log/libvirt": self.folder / "log",
        }
        if KVM.exists() and not self.kvm_open:
            # libvirt 9.0 probes QEMU with KVM, then finds that the user cannot open it, and probes
            # again at every look-up: 9 s for a define and a start.
            mounts[str(KVM)] = self.folder / "no-kvm"
            mounts[str(KVM)].touch(mode=0)
        settings = {
            "namespaces": self._as_root,
            "mounts": {target: str(source) for target, source in mounts.items()},
            "log": str(self.folder / "log" / "daemons.log"),
            "daemons": {name: [programs[name]] for name in ("virtlogd", "libvirtd")},
        }
        isolation = ["unshare", "--mount", "--propagation", _propagation(), "--net", "--pid", "--fork",
                     "--kill-child", "--mount-proc"] if self._as_root else []  # fmt: skip
        # A killed test run takes its daemon with it. unshare 2.38 ignores SIGTERM while its child runs.
        last_signal = "KILL" if isolation else "TERM"
        return [
            "setpriv", "--pdeathsig", last_signal, *isolation,
            programs["tini"], "-s", "-p", "SIGTERM", "--", sys.executable, str(SUPERVISOR), json.dumps(settings),
        ]  # fmt: skip

    def _wait_until_it_answers(self, virsh: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        assert self._process is not None
        while time.monotonic() < deadline and self._process.poll() is None:
            if self.socket.exists():
                done = subprocess.run(
                    [virsh, "-c", self.uri, "version"], check=False, capture_output=True, stdin=subprocess.DEVNULL
                )
                if done.returncode == 0:
                    return
            time.sleep(0.02)
        ended = self._process.poll()
        what = f"ended with {ended}" if ended is not None else f"does not answer within {START_TIMEOUT_S:.0f} s"
        raise RuntimeError(f"the private libvirtd {what}:\n{self.log()}")

    def _children_named(self, name: str) -> list[int]:
        """Find the supervisor or a daemon below our process, by PIDs as this side sees them."""
        assert self._process is not None
        found, ahead = [], [self._process.pid]
        while ahead:
            pid = ahead.pop()
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                program = Path(words[0]).name
                is_supervisor = program.startswith("python") and words[1:2] == [str(SUPERVISOR)]
                if program == name or (name == "supervisor" and is_supervisor):
                    found.append(pid)
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                ahead.extend(int(child) for child in children.split())
        return found


def _programs() -> dict[str, str]:
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    found = {name: shutil.which(name, path=places) for name in ("libvirtd", "virtlogd", "tini", "virsh")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise HostMissingError(f"{', '.join(missing)} not found: run `make setup`, which installs what tests need")
    return {name: path for name, path in found.items() if path is not None}


def _propagation() -> str:
    """Say how to keep our mounts to ourselves: slave, so that what the tests mount later is seen inside."""
    words = ["unshare", "--mount", "--propagation", "slave", "true"]
    if subprocess.run(words, check=False, capture_output=True).returncode == 0:
        return "slave"
    # EINVAL: a chroot whose folder is no mount point. Harmless where the root outside is private.
    mounts = Path("/proc/1/mountinfo").read_text().splitlines()
    if any("shared:" in line for line in mounts if line.split()[4] == "/"):
        raise HostMissingError("mounts cannot be made private in this chroot: bind its folder onto itself first")
    return "unchanged"


def _user_may_open(user: str, device: Path) -> bool:
    try:
        account = pwd.getpwnam(user)
    except KeyError as exc:
        raise HostMissingError(f"no user {user}: run `make setup`, which installs libvirt-daemon-system") from exc
    facts = device.stat()
    if facts.st_gid in os.getgrouplist(user, account.pw_gid):
        return facts.st_mode & 0o060 == 0o060
    return facts.st_mode & 0o006 == 0o006


def _parent() -> Path:
    """Give the folder for temporary files; a UNIX socket's path may have 107 bytes, and we add up to 80."""
    usual = tempfile.gettempdir()
    return Path(usual if len(os.fsencode(usual)) < 28 else "/tmp")


def _hold(folder: Path) -> int:
    """Lock `folder` for as long as this process lives."""
    fd = os.open(folder / "owner", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _remove_abandoned() -> None:
    """Remove the folders of test runs that were killed: those whose lock nobody holds."""
    for lock in _parent().glob(f"{PREFIX}*/owner"):
        with contextlib.suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)
