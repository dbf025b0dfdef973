"""The verbs save, load, list and rm: parse, call, print."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import click

from virtsnap.cli.answer import answer, print_json
from virtsnap.cli.main import Settings, end_in_order
from virtsnap.cli.progress import shown_progress
from virtsnap.errors import UnsupportedError, UsageError
from virtsnap.snapshots.api import SnapshotHost, connect
from virtsnap.snapshots.catalog import Facts, Snapshot
from virtsnap.snapshots.engines import ENGINE_NAMES, SAVE_ENGINE_NAMES, EngineName, SaveEngineName
from virtsnap.snapshots.plan import Final
from virtsnap.snapshots.run import Outcome
from virtsnap.snapshots.steps import Plan

_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, step by step, and do nothing.")


def connect_host(settings: Settings) -> SnapshotHost:
    """Connect as the global options say."""
    return connect(settings.uri, readonly=settings.readonly)


def folder_on(host: SnapshotHost, directory: str) -> str:
    """Give the absolute path of a folder that `--dir` names, on the hypervisor's machine.

    On failure: UsageError for one that is not there, or is relative to a folder of another machine's.
    """
    if not host.is_local:
        if not PurePosixPath(directory).is_absolute():
            raise UsageError(f"--dir {directory}: is not absolute, and it is a folder of another machine")
        return directory
    if not Path(directory).is_dir():
        raise UsageError(f"--dir {directory}: no such folder")
    return str(Path(directory).absolute())


def refuse_readonly(settings: Settings) -> None:
    """Raise UnsupportedError where the connection may not change anything."""
    if settings.readonly:
        raise UnsupportedError("a read-only connection cannot change anything", hint="leave --readonly out")


def print_plan(plan: Plan, settings: Settings) -> None:
    """Print what --dry-run is asked for."""
    if settings.json:
        print_json(answer(plan.op, domain=plan.domain, name=plan.name, dry_run=True, steps=list(plan.describe())))
        return
    for number, line in enumerate(plan.describe(), 1):
        click.echo(f"{number}. {line}")


def print_outcome(outcome: Outcome, settings: Settings, sentence: str) -> None:
    """Print what an operation did: JSON, or a sentence and the warnings."""
    if settings.json:
        print_json(answer(
            outcome.op, domain=outcome.domain, name=outcome.name, state=outcome.state,
            phases_s=dict(outcome.phases_s), total_s=round(outcome.total_s, 4), bytes=dict(outcome.bytes),
            warnings=list(outcome.warnings), **_reopened(outcome),
        ))
        return
    if not settings.quiet:
        click.echo(sentence)
    for warning in outcome.warnings:
        click.echo(f"warning: {warning}", err=True)


def _reopened(outcome: Outcome) -> dict[str, Any]:
    if outcome.op != "load":
        return {}
    return {"reopen": [
        {key: value for key, value in asdict(endpoint).items() if value is not None} for endpoint in outcome.reopen
    ]}


@click.command()
@click.argument("vm")
@click.argument("name")
@click.option("--dir", "directory", metavar="DIR",
              help="Where the snapshot's folder is made; default: beside the first writable disk.")
@click.option("--description", metavar="TEXT", help="A remark, kept in the snapshot.")
@click.option("--durable", is_flag=True, help="End only when all of it is on the disks: the host may crash.")
@click.option("--digests", is_flag=True, help="Read all of the snapshot's files and record their digests.")
@click.option("--engine", type=click.Choice(SAVE_ENGINE_NAMES),
              help="Force a way to save; default: instant for a domain that `create --ram-file` made.")
@_dry_run
@click.pass_obj
def save(
    settings: Settings, vm: str, name: str, directory: str | None, description: str | None, durable: bool,
    digests: bool, engine: SaveEngineName | None, dry_run: bool,
) -> None:
    """Save disks and memory of VM under NAME; the guest goes on.

    A snapshot that has the name is replaced, and stays until the new one is complete.
    """
    refuse_readonly(settings)
    with connect_host(settings) as host:
        place = None if directory is None else folder_on(host, directory)
        domain = host.domain(vm)
        if dry_run:
            print_plan(domain.plan_save(name, directory=place, durable=durable, engine=engine), settings)
            return
        end_in_order()
        with shown_progress(domain, settings) as watch:
            outcome = domain.save_snapshot(
                name, directory=place, description=description, with_digests=digests, durable=durable,
                engine=engine, timeout_s=settings.timeout_s, watch=watch,
            )
    memory = outcome.bytes.get("memory")
    what = "disks alone" if memory is None else f"{decimal(memory)} of memory"
    print_outcome(outcome, settings, f"saved {outcome.domain} as {name}: {what}, {outcome.total_s:.2f} s")


@click.command()
@click.argument("vm")
@click.argument("name")
@click.option("--keep-newer", is_flag=True, help="Keep the snapshots that were saved after NAME.")
@click.option("--paused", is_flag=True, help="Leave the guest paused.")
@click.option("--as-saved", is_flag=True, help="Leave the guest as it was at the save: running, paused or off.")
@click.option("--verify", is_flag=True, help="Read all of the snapshot first, and compare it with its digests.")
@click.option("--sync-time", is_flag=True, help="Have the guest's agent set its clock; warn where none answers.")
@click.option("--engine", type=click.Choice(ENGINE_NAMES),
              help="Force a way to load; default: instant for what was saved so, else restore.")
@_dry_run
@click.pass_obj
def load(
    settings: Settings, vm: str, name: str, keep_newer: bool, paused: bool, as_saved: bool,
    verify: bool, sync_time: bool, engine: EngineName | None, dry_run: bool,
) -> None:
    """Bring VM back to NAME, and let the guest run.

    What was saved after NAME on its line is forgotten with its files once the guest runs. Consoles and displays
    have to be opened again; with --json the answer's `reopen` says which, and where. A --timeout counts up to the
    stop of the old guest; from there on the load is finished.
    """
    refuse_readonly(settings)
    if paused and as_saved:
        raise click.UsageError("--paused and --as-saved exclude each other")
    final: Final = "paused" if paused else "as-saved" if as_saved else "running"
    with connect_host(settings) as host:
        domain = host.domain(vm)
        if dry_run:
            print_plan(domain.plan_load(name, final=final, keep_newer=keep_newer, engine=engine), settings)
            return
        end_in_order()
        with shown_progress(domain, settings) as watch:
            outcome = domain.load_snapshot(
                name, final=final, keep_newer=keep_newer, engine=engine, verify=verify, sync_time=sync_time,
                timeout_s=settings.timeout_s, watch=watch,
            )
    print_outcome(
        outcome, settings, f"loaded {name} into {outcome.domain}: {outcome.state}, {outcome.total_s:.2f} s"
    )


@click.command()
@click.argument("vm")
@click.argument("name")
@_dry_run
@click.pass_obj
def rm(settings: Settings, vm: str, name: str, dry_run: bool) -> None:
    """Remove the snapshot NAME of VM; all others can still be loaded."""
    refuse_readonly(settings)
    with connect_host(settings) as host:
        domain = host.domain(vm)
        if dry_run:
            print_plan(domain.plan_remove(name), settings)
            return
        end_in_order()
        outcome = domain.remove_snapshot(name, timeout_s=settings.timeout_s)
    freed = decimal(outcome.bytes.get("freed", 0))
    print_outcome(outcome, settings, f"removed {name} of {outcome.domain}: {freed} freed")


@click.command("list")
@click.argument("vm")
@click.pass_obj
def list_(settings: Settings, vm: str) -> None:
    """List the snapshots of VM, oldest first; `*` marks the current one."""
    with connect_host(settings) as host:
        domain = host.domain(vm)
        snapshots, state = domain.snapshots(), domain.state()
    if settings.json:
        print_json(answer("list", domain=domain.name, state=state, snapshots=[_row(each) for each in snapshots]))
        return
    if not snapshots:
        if not settings.quiet:
            click.echo(f"{domain.name} has no snapshots")
        return
    # rich takes a tenth of a second to load, which no other verb has to pay.
    from rich.console import Console
    from rich.table import Table

    table = Table("", "name", "state", "created", "memory", "disks", "engine", "made by", box=None, pad_edge=False)
    for snapshot in snapshots:
        facts = snapshot.facts
        table.add_row(
            "*" if snapshot.is_current else "", plain(snapshot.name), snapshot.state,
            datetime.fromtimestamp(snapshot.created_s).strftime("%Y-%m-%d %H:%M:%S"),
            decimal(_memory_bytes(facts)) if facts is not None and facts.memory is not None else "-",
            str(len(snapshot.overlay_paths)) if not snapshot.is_internal else "internal",
            "libvirt" if facts is None else facts.engine,
            "virtsnap" if facts is not None else snapshot.problem or "virsh",
        )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)


def _memory_bytes(facts: Facts) -> int:
    return sum(held.size_bytes for held in (facts.memory, facts.ram if facts.has_own_ram else None) if held)


def decimal(size_bytes: int) -> str:
    """Write a size for people, in powers of 1000."""
    amount, units = float(size_bytes), iter(("bytes", "kB", "MB", "GB"))
    unit = next(units)
    while amount >= 1000:
        following = next(units, None)
        if following is None:
            break
        amount, unit = amount / 1000, following
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


def plain(name: str) -> str:
    """Give a name that cannot steer a terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in name)


def _row(snapshot: Snapshot) -> dict[str, Any]:
    facts = snapshot.facts
    return {
        "name": snapshot.name, "object": snapshot.object_name, "parent": snapshot.parent,
        "current": snapshot.is_current, "state": snapshot.state, "created_s": snapshot.created_s,
        "internal": snapshot.is_internal, "problem": snapshot.problem,
        "memory": snapshot.memory_path, "overlays": list(snapshot.overlay_paths),
        "engine": "libvirt" if facts is None else facts.engine,
        "bytes": {"memory": _memory_bytes(facts)} if facts is not None and facts.memory is not None else {},
        "facts": None if facts is None else json.loads(json.dumps(asdict(facts))),
    }
