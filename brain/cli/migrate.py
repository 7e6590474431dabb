"""brain migrate"""

from __future__ import annotations

from typing import Any

import click

from brain.cli.database import database, database_option, read_settings, run
from brain.database import migrations
from brain.database.connection import (
    require_own_session,
    shown,
)
from brain.server import end_on_signals


@click.command("migrate")
@database_option
@click.option("--status", is_flag=True, help="Only say what has been applied and what has not.")
@click.option("--dry-run", is_flag=True, help="Only say what would be applied.")
def migrate_command(status: bool, dry_run: bool, **flags: Any) -> None:
    """Bring a database up to date."""
    settings = read_settings(**flags)
    shipped = migrations.shipped()
    end_on_signals()
    with database(settings, may_share=True) as (url, *_):
        if status or dry_run:
            found = run(url, migrations.status(url, shipped))
            if status:
                for migration in found.applied:
                    click.echo(f"applied  {migration}")
            for migration in found.pending:
                click.echo(f"{'pending' if status else 'would apply'}  {migration}")
            if dry_run and not found.pending:
                click.echo("nothing to apply")
            return
        run(url, require_own_session(url))
        applied = run(url, migrations.migrate(url, shipped))
        for migration in applied:
            click.echo(f"applied  {migration}")
        click.echo(f"{shown(url)} is up to date")
