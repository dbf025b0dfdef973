"""What a verb answers: one JSON object, error lines on stderr, and the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from virtsnap import errors

EXIT_CODES: Mapping[type[errors.VirtsnapError], int] = {
    errors.UsageError: 2,
    errors.NoSuchDomainError: 3,
    errors.NoSuchSnapshotError: 4,
    errors.ExistsError: 5,
    errors.UnsupportedError: 6,
    errors.OperationTimeoutError: 7,
    errors.HypervisorError: 8,
    errors.BusyError: 9,
}


def exit_code_of(error: errors.VirtsnapError) -> int:
    """Give the exit code of an error: its own class's, or its nearest ancestor's."""
    for cls in type(error).__mro__:
        if cls in EXIT_CODES:
            return EXIT_CODES[cls]
    return 1


def answer(op: str, **fields: Any) -> dict[str, Any]:
    """Build the JSON object of DESIGN's `--json`: schema, ok, op and the verb's own fields."""
    return {"schema": 1, "ok": "error" not in fields, "op": op, **fields}


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def report_error(error: errors.VirtsnapError, *, op: str, json_: bool) -> int:
    """Print an error for a person (stderr) or, under --json, as the one object; return the exit code."""
    if json_:
        print_json(answer(op, error={"code": error.code, "message": error.message, "hint": error.hint}))
        return exit_code_of(error)
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return exit_code_of(error)
