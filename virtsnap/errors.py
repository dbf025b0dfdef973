"""The tree of errors, named for what the caller does next.

    VirtsnapError
    ├── UsageError               the request itself is wrong; ask again, differently
    │   ├── CommandLineError     a QEMU command line that cannot be read; names the argument
    │   └── TemplateError        a template that is missing or malformed
    ├── NoSuchDomainError        look at `virsh list --all`
    ├── NoSuchSnapshotError      look at `virtsnap list`
    ├── ExistsError              choose another name, or remove the old one
    ├── UnsupportedError         refused before anything was touched; the reason is in the message
    ├── OperationTimeoutError    the time that the caller gave has run out
    ├── HypervisorError          libvirt or QEMU answered an error; its own words are in the message
    └── BusyError                another operation holds the domain; try again when it is done

Every error has a message (what, and where) and may have a hint (what next).
Printing them and turning them into exit codes belongs to `virtsnap.cli`.
"""

from __future__ import annotations

from typing import ClassVar


class VirtsnapError(Exception):
    """Base of all errors that virtsnap raises on purpose.

    `code` is a stable word for programs (the `error.code` of `--json`).
    """

    code: ClassVar[str] = "error"
    # libvirt's own words, where the error comes from it and nothing is put before or after them
    libvirt_message: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(VirtsnapError):
    """The request itself is wrong: a bad name, a bad option, an unreadable file."""

    code = "usage"


class CommandLineError(UsageError):
    """A QEMU command line that cannot be read.

    `argument` is the index in argv of the word at fault (argv[0] is the
    emulator), or None where no single word is.
    """

    code = "command-line"

    def __init__(self, message: str, *, argument: int | None = None, hint: str | None = None) -> None:
        where = "" if argument is None else f" (argument {argument})"
        super().__init__(f"{message}{where}", hint=hint)
        self.argument = argument


class TemplateError(UsageError):
    """A domain template that is missing, is not XML, or has a hole that nothing fills."""

    code = "template"


class NoSuchDomainError(VirtsnapError):
    """The hypervisor has no domain of that name or UUID."""

    code = "no-such-domain"


class NoSuchSnapshotError(VirtsnapError):
    """The domain has no snapshot of that name."""

    code = "no-such-snapshot"


class ExistsError(VirtsnapError):
    """What was to be made is there already."""

    code = "exists"


class UnsupportedError(VirtsnapError):
    """Refused before anything was touched, because it cannot be done on this domain or host."""

    code = "unsupported"


class OperationTimeoutError(VirtsnapError):
    """The time that the caller gave has run out."""

    code = "timeout"


class HypervisorError(VirtsnapError):
    """libvirt or QEMU answered an error.

    `libvirt_code` is the VIR_ERR_* number where libvirt gave one.
    """

    code = "hypervisor"

    def __init__(self, message: str, *, hint: str | None = None, libvirt_code: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.libvirt_code = libvirt_code


class BusyError(VirtsnapError):
    """Another operation holds the domain."""

    code = "busy"
