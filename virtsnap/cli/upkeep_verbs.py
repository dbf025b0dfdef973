"""The verbs that keep a domain's snapshots in order: parse, call, print."""

from __future__ import annotations

import click

from virtsnap.cli.answer import answer, print_json
from virtsnap.cli.main import Settings
from virtsnap.cli.snapshot_verbs import connect_host, refuse_readonly


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
