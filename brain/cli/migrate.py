"""brain migrate"""

from __future__ import annotations

from typing import Any

import click

from brain.cli.database import database, database_option, read_settings, run
from brain.cli.systems import systems_of, systems_option
from brain.database import migrations
from brain.database.connection import require_own_session
from brain.database.url import shown
from brain.process.signals import end_on_signals
from brain.system import installed_systems, schemas_of


@click.command("migrate")
@systems_option
@database_option
@click.option("--status", is_flag=True, help="Only print what is applied and what is pending.")
@click.option("--dry-run", is_flag=True, help="Only print what would be applied.")
def migrate_command(status: bool, dry_run: bool, **flags: Any) -> None:
    """Migrate a database."""
    settings = read_settings(**flags)
    wanted = schemas_of(systems_of(settings, installed_systems()))
    end_on_signals()
    with database(settings, may_share=True) as (url, *_):
        found = run(url, migrations.status(url, wanted))
        for newer in found.newer:
            click.echo(f"brain: {newer}", err=True)
        if status or dry_run:
            if status:
                for step in found.applied:
                    click.echo(f"applied  {step}")
            for step in found.pending:
                click.echo(f"{'pending' if status else 'would apply'}  {step}")
            if dry_run and not found.pending:
                click.echo("nothing to apply")
            return
        run(url, require_own_session(url))
        applied = run(url, migrations.migrate(url, wanted))
        for step in applied:
            click.echo(f"applied  {step}")
        click.echo(f"{shown(url)} is up to date")
