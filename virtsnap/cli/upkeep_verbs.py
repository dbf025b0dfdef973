"""The verbs that keep a domain's snapshots in order: parse, call, print."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from virtsnap.cli.answer import answer, print_json
from virtsnap.cli.main import Settings, end_in_order
from virtsnap.cli.progress import shown_progress
from virtsnap.cli.snapshot_verbs import (
    connect_host,
    decimal,
    folder_on,
    plain,
    print_outcome,
    print_plan,
    refuse_readonly,
)

_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@click.command()
@click.argument("vm")
@click.option("--deep", is_flag=True, help="Read every file of the snapshots and compare digests.")
@click.pass_obj
def check(settings: Settings, vm: str, deep: bool) -> int:
    """Say whether VM can be saved, and whether its snapshots are whole (exit 1: no)."""
    refuse_readonly(settings)
    with connect_host(settings) as host:
        verdict = host.domain(vm).check(deep=deep)
    code = 0 if verdict.is_good else 1
    if settings.json:
        print_json(answer("check", deep=deep, good=verdict.is_good, **asdict(verdict)))
        return code
    for obstacle in verdict.obstacles:
        click.echo(f"in the way: {obstacle}")
    for each in verdict.snapshots:
        for problem in each.problems:
            click.echo(f"{plain(each.name)}: {problem}")
        if not each.problems and not settings.quiet:
            digests = f" ({each.compared} digests compared, {each.recorded} recorded)" if deep else ""
            click.echo(f"{plain(each.name)}: whole{digests}")
    if not settings.quiet:
        for remark in verdict.remarks:
            click.echo(f"note: {remark}")
        why_not = verdict.instant.why_not
        click.echo("instant saves: " + ("yes" if why_not is None else f"no, {why_not}"))
        for need in verdict.instant.needs:
            click.echo(f"instant needs: {need}")
        if not verdict.obstacles:
            click.echo(f"{verdict.domain} can be saved")
    return code


@click.command()
@click.argument("vm")
@_dry_run
@click.pass_obj
def flatten(settings: Settings, vm: str, dry_run: bool) -> None:
    """Shorten the chains of files under VM's disks; the guest goes on, the snapshots stay as they are."""
    refuse_readonly(settings)
    with connect_host(settings) as host:
        domain = host.domain(vm)
        if dry_run:
            print_plan(domain.plan_flatten(), settings)
            return
        end_in_order()
        with shown_progress(domain, settings) as watch:
            outcome = domain.flatten(timeout_s=settings.timeout_s, watch=watch)
    cost, freed = decimal(outcome.bytes.get("pulled", 0)), decimal(outcome.bytes.get("freed", 0))
    print_outcome(outcome, settings, f"flattened {outcome.domain}: {cost} written, {freed} freed")


@click.command()
@click.argument("vm", required=False)
@click.option("--dir", "directories", metavar="DIR", multiple=True,
              help="Also look for folders of snapshots here; can be given several times.")
@_dry_run
@click.pass_obj
def gc(settings: Settings, vm: str | None, directories: tuple[str, ...], dry_run: bool) -> None:
    """Remove snapshot files that nothing refers to, of VM or of all domains, vanished ones included.

    Looked into is every folder where a domain of this hypervisor has a disk or a snapshot. A domain counts as
    vanished when this hypervisor does not know it.
    """
    refuse_readonly(settings)
    with connect_host(settings) as host:
        found = host.collect_garbage(
            directories=[folder_on(host, place) for place in directories], only=vm, dry_run=dry_run
        )
    if settings.json:
        print_json(answer("gc", dry_run=dry_run, files=list(found.paths), bytes={"freed": found.held_bytes},
                          spared=list(found.spared)))
        return
    for path in found.paths:
        click.echo(path)
    for line in found.spared:
        click.echo(f"left alone: {line}", err=True)
    if not settings.quiet:
        done = "would be" if dry_run else "were"
        click.echo(f"{len(found.paths)} files {done} removed, {decimal(found.held_bytes)} freed")


@click.command()
@click.option("--dir", "directory", metavar="DIR", type=click.Path(path_type=Path),
              help="The folder where disks and snapshots are to lie.")
@click.pass_obj
def doctor(settings: Settings, directory: Path | None) -> int:
    """Say whether this host is fit for snapshots, with a remedy where it is not (exit 1: not fit)."""
    from virtsnap.host.doctor import examine

    findings = examine(settings.uri, directory=None if directory is None else str(directory.absolute()))
    code = 1 if any(finding.mark == "bad" for finding in findings) else 0
    if settings.json:
        print_json(answer("doctor", fit=code == 0, findings=[asdict(finding) for finding in findings]))
        return code
    for finding in findings:
        if settings.quiet and finding.mark == "ok":
            continue
        click.echo(f"{finding.mark:4}  {finding.about}: {finding.said}")
        if finding.remedy:
            click.echo(f"      → {finding.remedy}")
    return code


@click.command()
@click.argument("vm")
@click.option("--force", is_flag=True,
              help="Also where the operation's process was on another machine and cannot be seen to be dead.")
@click.pass_obj
def recover(settings: Settings, vm: str, force: bool) -> None:
    """Finish or undo the operation on VM whose process was killed.

    Without one nothing happens. While the process lives the answer is busy (exit 9).
    """
    refuse_readonly(settings)
    with connect_host(settings) as host:
        domain = host.domain(vm)
        done = domain.recover(force=force)
        state = domain.state()
    if settings.json:
        print_json(answer(
            "recover", domain=domain.name, state=state, interrupted=None if done is None else done.op,
            name=None if done is None else done.name, result="nothing" if done is None else done.how,
            warnings=[] if done is None else list(done.warnings),
        ))
        return
    if not settings.quiet:
        said = "nothing was interrupted" if done is None else done.describe()
        click.echo(f"{domain.name}: {said}; it is {state}")
    for warning in () if done is None else done.warnings:
        click.echo(f"warning: {warning}", err=True)
