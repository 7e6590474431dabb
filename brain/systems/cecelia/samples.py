"""A few tasks to look at in a new database."""

from __future__ import annotations

import asyncpg

from brain.database.connection import first_line

CREATED_BY_BRAIN = """
    SELECT created_by_brain FROM brain.system_table_status WHERE relation = 'public.tasks'
"""
# `task-123` is the one in the protocol's examples.
SAMPLES = """
    INSERT INTO public.tasks (id, title, agent, status, progress, payload, error)
    SELECT s.* FROM (VALUES
        ('task-123', 'Build the live dashboard', 'dev', 'queued', 0,
         '{"total_steps": 11}'::jsonb, NULL),
        ('task-124', 'Review the pull request', 'review', 'in_progress', 3,
         '{"total_steps": 8, "current_step": 3, "step_name": "Reading the tests"}', NULL),
        ('task-125', 'Write the release notes', 'docs', 'completed', 5, '{"total_steps": 5}', NULL),
        ('task-126', 'Deploy to staging', 'ops', 'failed', 7, '{"total_steps": 9}',
         'Build failed: TypeScript compilation error')
    ) s (id, title, agent, status, progress, payload, error)
    WHERE NOT EXISTS (SELECT FROM public.tasks)
"""


async def insert_samples(connection: asyncpg.Connection) -> str | None:
    """
    Insert the sample tasks, unless there are tasks already.

    Returns why not, if the table is not as Brain created it.
    """
    if not await connection.fetchval(CREATED_BY_BRAIN):
        return "no sample tasks: public.tasks is not a table that Brain created"
    try:
        await connection.execute(SAMPLES)
    except (asyncpg.UndefinedColumnError, asyncpg.IntegrityConstraintViolationError) as error:
        return f"no sample tasks: public.tasks was altered: {first_line(error)}"
    return None
