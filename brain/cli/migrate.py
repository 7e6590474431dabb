"""brain migrate"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
import orjson

from brain.cli.database import database, database_option, read_settings, run
from brain.cli.migration_plan import plan_text
from brain.cli.systems import systems_of, systems_option
from brain.database import migrations
from brain.database.connection import require_own_session
from brain.database.migration_plan import plan_migration
from brain.database.schema_files import Schema
from brain.database.url import shown
from brain.errors import UsageError
from brain.process.signals import end_on_signals
from brain.system import installed_systems, schemas_of


@click.command("migrate")
@systems_option
@database_option
@click.option("--status", is_flag=True, help="Only print what is applied and what is pending.")
@click.option("--dry-run", is_flag=True, help="Only print what would be applied.")
@click.option(
    "--plan",
    is_flag=True,
    help="Only print what would be applied, the locks that it takes, whether nodes go on serving "
    "meanwhile, and the order of a rolling upgrade.  Exits with 0 if there is nothing to apply, 6 "
    "if nodes go on, 7 if they do not.",
)
@click.option(
    "--replay",
    is_flag=True,
    help="Apply the files of this Brain also if others of the same revision have replaced them.",
)
@click.option(
    "--spare-nodes",
    is_flag=True,
    help="Refuse, as `brain serve` does, what would cut off nodes that serve the database.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def migrate_command(
    status: bool,
    dry_run: bool,
    plan: bool,
    replay: bool,
    spare_nodes: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Migrate a database."""
    if as_json and not plan:
        raise UsageError("--json is for --plan")
    settings = read_settings(**flags)
    wanted = schemas_of(systems_of(settings, installed_systems()))
    end_on_signals()
    with database(settings, may_share=True) as (url, *_):
        if plan:
            exit_status = print_plan(url, wanted, as_json)
        elif status or dry_run:
            exit_status = print_status(url, wanted, with_applied=status)
        else:
            exit_status = apply(url, wanted, replays=replay, spares_nodes=spare_nodes)
    sys.exit(exit_status)


def print_plan(url: str, schemas: Sequence[Schema], as_json: bool) -> int:
    plan = run(url, plan_migration(url, schemas))
    if as_json:
        click.echo(orjson.dumps(plan, option=orjson.OPT_INDENT_2))
    else:
        click.echo(plan_text(plan, shown(url)))
    return plan.exit_status


def print_status(url: str, schemas: Sequence[Schema], *, with_applied: bool) -> int:
    found = run(url, migrations.status(url, schemas))
    for newer in found.newer:
        click.echo(f"newer  {newer}")
    for step in found.applied if with_applied else ():
        click.echo(f"applied  {step}")
    for step in found.pending:
        click.echo(f"{'pending' if with_applied else 'would apply'}  {step}")
    if not (with_applied or found.pending):
        click.echo("nothing to apply")
    return 0


def apply(url: str, schemas: Sequence[Schema], *, replays: bool, spares_nodes: bool) -> int:
    run(url, require_own_session(url))
    migrating = migrations.migrate(url, schemas, replays=replays, spares_nodes=spares_nodes)
    for step in run(url, migrating):
        click.echo(f"applied  {step}")
    for newer in run(url, migrations.status(url, schemas)).newer:
        if not newer.has_same_revision:  # of the others the migration has warned
            click.echo(f"brain: {newer}", err=True)
    click.echo(f"{shown(url)} is up to date")
    return 0
