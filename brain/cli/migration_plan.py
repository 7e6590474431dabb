"""The text of `brain migrate --plan`."""

from __future__ import annotations

from collections.abc import Iterator

from brain.database.migration_plan import Plan, PlannedStep


def plan_text(plan: Plan, database: str) -> str:
    """Return a plan as lines for a person; `database` names where it would be carried out."""
    return "\n".join(lines(plan, database))


def lines(plan: Plan, database: str) -> Iterator[str]:
    yield f"Brain {plan.brain_version} with revision {plan.revision}, on {database}"
    if plan.present_version is None:
        yield "present: no schema of Brain"
    else:
        yield (
            f"present: revision {plan.present_revision}, migrated by Brain {plan.present_version}; "
            f"processes that serve it now: {plan.serving_nodes}"
        )
    yield from plan.newer
    for schema in plan.applied_again:
        yield f"applied again, for it has a problem that `brain systems` shows: schema {schema}"
    if not plan.steps:
        yield "nothing to apply"
        return
    yield ""
    yield "would apply, each in a transaction of its own:"
    for number, step in enumerate(plan.steps, start=1):
        yield from step_lines(number, step)
    yield ""
    yield from order(plan)


def step_lines(number: int, step: PlannedStep) -> Iterator[str]:
    """Describe a step, and the locks that it takes."""
    what = "upgrade" if step.kind == "upgrade" else f"files: {len(step.files)}"
    yield f"  {number}. {step.name} ({what})"
    if step.locks is None:
        yield f"     locks: not declared; read upgrades/{', '.join(step.files)}"
    elif not step.locks:
        yield "     locks: none that others wait for"
    for lock in step.locks or ():
        yield f"     locks {lock.relation} ({lock.mode}): {lock.waiting}"


def order(plan: Plan) -> Iterator[str]:
    """Say in which order to migrate and to replace nodes."""
    new, old = f"Brain {plan.brain_version}", f"Brain {plan.present_version}"
    if plan.present_version is None:
        yield f"No node serves this database yet. Run `brain migrate`, then start {new}."
        return
    if not plan.nodes_go_on:
        yield f"Nodes of {old} do NOT go on serving: the new schema serves {plan.serves_since} and"
        yield "newer. Without an interruption: upgrade to that version first. With one of seconds:"
        yield f"  1. stop all nodes of {old}"
        yield f"  2. with {new}: brain migrate"
        yield f"  3. start the nodes of {new}: clients with cursors come back, and miss nothing"
        return
    yield f"Nodes of {old} go on serving, meanwhile and afterwards: the new schema serves"
    yield f"{plan.serves_since} and newer. A rolling upgrade:"
    yield f"  1. with {new}: brain migrate"
    yield "  2. replace the nodes one after another: send SIGTERM, wait until it has ended, start"
    yield f"     {new}, wait until its /readyz returns 200"
    yield f"  3. with {new}: brain migrate --plan, which exits with 0"
