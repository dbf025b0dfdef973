"""Validity against libvirt's schema, asked in a process of its own with a limit.

libxml2 tries the branches of an interleave one after the other: a document
that is wrong in one attribute of a large element can keep it busy for hours. A valid
one takes milliseconds, so what is not done in time is not valid.
"""

from __future__ import annotations

import atexit
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from lxml import etree

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
# What the schema of Debian 12's libvirt knows; it is what is installed where the tests run.
SCHEMA_VERSION = (9, 0)
LIMIT_S = 20.0


def _serve(connection: Connection) -> None:
    schema = etree.RelaxNG(etree.parse(str(SCHEMA)))
    while True:
        try:
            xml = connection.recv()
        except EOFError:
            return
        valid = schema.validate(etree.fromstring(xml))
        connection.send(None if valid else str(schema.error_log.last_error))


class Validator:
    """The process that validates; started when first asked, and again after one that took too long."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def problem(self, xml: str) -> str | None:
        """Say what is wrong with a document, or None where it is valid."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
        assert self._connection is not None
        self._connection.send(xml)
        if not self._connection.poll(LIMIT_S):
            self.stop()
            return f"no answer in {LIMIT_S:.0f} s, as for an element with a wrong attribute among many"
        answer: str | None = self._connection.recv()
        return answer


_validator = Validator()


def schema_problem(xml: str) -> str | None:
    """Say what libvirt's schema has against a document, or None where it is valid."""
    return _validator.problem(xml)
