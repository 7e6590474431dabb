"""A few tasks to look at in a new database."""

from __future__ import annotations

import asyncpg

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


async def insert_samples(connection: asyncpg.Connection) -> None:
    """Insert the sample tasks, unless there are tasks already."""
    await connection.execute(SAMPLES)
