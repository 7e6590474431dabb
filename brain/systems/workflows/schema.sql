-- A dashboard of agents' workflows: eight tables, and eight feeds that query them. Keys of a row's details
-- stand beside its columns in the state.

SET LOCAL ROLE brain_owner;

-- A time as 2025-12-11T10:00:00Z; null for a time that has no such form.
CREATE OR REPLACE FUNCTION brain.iso_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN moment >= '0001-01-01Z' AND moment < '10000-01-01Z'
                THEN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END
$$;
REVOKE ALL ON FUNCTION brain.iso_time FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain.iso_time TO brain_reader;  -- as which feeds are read

RESET ROLE;

SELECT brain.adopt_table('workflows', 'public.workflows',
    channel => 'workflows',
    required => '{id,name,status,start_time,details}',
    wanted => '{}',
    definition => $table$
CREATE TABLE public.workflows (
    id         text        PRIMARY KEY DEFAULT gen_random_uuid()::text,
    name       text        NOT NULL,
    status     text        NOT NULL DEFAULT 'running'
               CHECK (status IN ('queued', 'running', 'paused', 'success', 'completed', 'failed', 'cancelled')),
    start_time timestamptz NOT NULL DEFAULT now(),
    details    jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.workflows
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

SELECT brain.adopt_table('workflows', 'public.routes',
    channel => 'routes',
    required => '{path,method,details}',
    wanted => '{}',
    definition => $table$
CREATE TABLE public.routes (
    path       text        NOT NULL,
    method     text        NOT NULL DEFAULT 'GET' CHECK (method = upper(method)),
    details    jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (path, method)
);

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.routes
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

SELECT brain.adopt_table('workflows', 'public.workflow_history',
    channel => 'workflow_history',
    required => '{id,name,status,duration,ended_at,details}',
    wanted => '{}',
    definition => $table$
CREATE TABLE public.workflow_history (
    id         text             PRIMARY KEY DEFAULT gen_random_uuid()::text,
    name       text             NOT NULL,
    status     text             NOT NULL CHECK (status IN ('success', 'completed', 'failed', 'cancelled')),
    duration   double precision CHECK (duration >= 0 AND duration < 'infinity'),  -- seconds
    ended_at   timestamptz      NOT NULL DEFAULT now(),
    details    jsonb            NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    updated_at timestamptz      NOT NULL DEFAULT now()
);
CREATE INDEX workflow_history_newest ON public.workflow_history (ended_at DESC, id);

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.workflow_history
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

SELECT brain.adopt_table('workflows', 'public.adw_states',
    channel => 'adw_states',
    required => '{adw_id,issue_number,status,branch_name,plan_file,issue_class,worktree_path,backend_port,
                  frontend_port,model_set,all_adws,workflow_template,model_used,start_time,nl_input,
                  github_url,details,updated_at}',
    wanted => '{}',
    unwatched => '{updated_at}',
    definition => $table$
CREATE TABLE public.adw_states (
    adw_id            text        PRIMARY KEY DEFAULT gen_random_uuid()::text,
    issue_number      text,
    status            text        NOT NULL DEFAULT 'queued'
                      CHECK (status IN ('queued', 'running', 'paused', 'completed', 'failed')),
    branch_name       text,
    plan_file         text,
    issue_class       text,
    worktree_path     text,
    backend_port      integer     CHECK (backend_port BETWEEN 1 AND 65535),
    frontend_port     integer     CHECK (frontend_port BETWEEN 1 AND 65535),
    model_set         text,
    all_adws          text[],
    workflow_template text,
    model_used        text,
    start_time        timestamptz,
    nl_input          text,
    github_url        text,
    details           jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    updated_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.adw_states
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

SELECT brain.adopt_table('workflows', 'public.phase_queue',
    channel => 'phase_queue',
    required => '{queue_id,issue_number,parent_issue,phase,status,priority,metadata,created_at,updated_at}',
    wanted => '{details}',
    definition => $table$
CREATE TABLE public.phase_queue (
    queue_id     bigint      PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    issue_number text        NOT NULL,
    parent_issue text,
    phase        text        NOT NULL,
    status       text        NOT NULL DEFAULT 'queued'
                 CHECK (status IN ('queued', 'ready', 'running', 'blocked', 'completed', 'failed', 'cancelled')),
    priority     integer     NOT NULL DEFAULT 0,  -- the lowest comes first
    metadata     jsonb,
    details      jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.phase_queue
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

-- One row each: there is one queue, one system, one webhook.
SELECT brain.adopt_table('workflows', 'public.phase_queue_state',
    channel => 'phase_queue_state',
    required => '{is_only,paused}',
    wanted => '{}',
    definition => $table$
CREATE TABLE public.phase_queue_state (
    is_only    boolean     PRIMARY KEY DEFAULT true CHECK (is_only),
    paused     boolean     NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO public.phase_queue_state DEFAULT VALUES;

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.phase_queue_state
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

SELECT brain.adopt_table('workflows', 'public.system_status',
    channel => 'system_status',
    required => '{is_only,overall_status,details}',
    wanted => '{}',
    definition => $table$
CREATE TABLE public.system_status (
    is_only        boolean     PRIMARY KEY DEFAULT true CHECK (is_only),
    overall_status text        NOT NULL DEFAULT 'unknown'
                   CHECK (overall_status IN ('unknown', 'healthy', 'degraded', 'error')),
    details        jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
INSERT INTO public.system_status DEFAULT VALUES;

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.system_status
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

SELECT brain.adopt_table('workflows', 'public.webhook_status',
    channel => 'webhook_status',
    required => '{is_only,status,details}',
    wanted => '{}',
    definition => $table$
CREATE TABLE public.webhook_status (
    is_only    boolean     PRIMARY KEY DEFAULT true CHECK (is_only),
    status     text        NOT NULL DEFAULT 'unknown'
               CHECK (status IN ('unknown', 'healthy', 'degraded', 'error')),
    details    jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(details) = 'object'),
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO public.webhook_status DEFAULT VALUES;

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.webhook_status
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

SELECT brain.adopt_feed('workflows', 'workflows', $$
    SELECT coalesce(jsonb_agg(coalesce(details, '{}') || jsonb_build_object(
               'id', id, 'name', name, 'status', status, 'start_time', brain.iso_time(start_time))
               ORDER BY start_time DESC, id), '[]')
      FROM public.workflows WHERE status IN ('queued', 'running', 'paused')
$$, '{workflows}');

SELECT brain.adopt_feed('workflows', 'routes', $$
    SELECT coalesce(jsonb_agg(coalesce(details, '{}') || jsonb_build_object('path', path, 'method', method)
               ORDER BY path, method), '[]')
      FROM public.routes
$$, '{routes}');

-- The hundred newest workflows, and the failures among them. The success rate is a percentage of those
-- that succeeded or failed.
SELECT brain.adopt_feed('workflows', 'workflow-history', $$
    SELECT jsonb_build_object('workflows', n.workflows, 'total_count', a.total_count, 'analytics',
               to_jsonb(a) || jsonb_build_object('recent_failures', n.failures))
      FROM (SELECT count(*) AS total_count,
                   coalesce(trim_scale(round(100.0 * count(*) FILTER (WHERE status IN ('success', 'completed'))
                       / nullif(count(*) FILTER (WHERE status <> 'cancelled'), 0), 1)), 0) AS success_rate,
                   coalesce(trim_scale(round(avg(duration::numeric), 1)), 0) AS average_duration
              FROM public.workflow_history) a,
           (SELECT count(*) FILTER (WHERE status = 'failed') AS failures,
                   coalesce(jsonb_agg(coalesce(details, '{}') || jsonb_strip_nulls(jsonb_build_object(
                       'id', id, 'name', name, 'status', status, 'duration', duration))
                       ORDER BY ended_at DESC, id), '[]') AS workflows
              FROM (SELECT * FROM public.workflow_history ORDER BY ended_at DESC, id LIMIT 100) newest) n
$$, '{workflow_history}');

SELECT brain.adopt_feed('workflows', 'adw-state', $$
    SELECT coalesce(details, '{}') || jsonb_strip_nulls(jsonb_build_object(
               'adw_id', adw_id, 'issue_number', issue_number, 'status', status,
               'branch_name', branch_name, 'plan_file', plan_file, 'issue_class', issue_class,
               'worktree_path', worktree_path, 'backend_port', backend_port,
               'frontend_port', frontend_port, 'model_set', model_set, 'all_adws', all_adws,
               'workflow_template', workflow_template, 'model_used', model_used,
               'start_time', brain.iso_time(start_time), 'nl_input', nl_input, 'github_url', github_url))
      FROM public.adw_states WHERE adw_id = $1
$$, '{adw_states}', takes_argument => true, argument_is_key => true);

SELECT brain.adopt_feed('workflows', 'adw-monitor', $$
    SELECT jsonb_build_object(
               'workflows', coalesce(jsonb_agg(coalesce(details, '{}') || jsonb_strip_nulls(jsonb_build_object(
                   'adw_id', adw_id, 'status', status, 'issue_number', issue_number,
                   'issue_class', issue_class, 'workflow_template', workflow_template,
                   'start_time', brain.iso_time(start_time)))
                   ORDER BY start_time DESC NULLS LAST, adw_id), '[]'),
               'summary', jsonb_build_object(
                   'total', count(*),
                   'running', count(*) FILTER (WHERE status = 'running'),
                   'completed', count(*) FILTER (WHERE status = 'completed'),
                   'failed', count(*) FILTER (WHERE status = 'failed'),
                   'paused', count(*) FILTER (WHERE status = 'paused')),
               'last_updated', brain.iso_time(coalesce(max(updated_at), now())))
      FROM public.adw_states
$$, '{adw_states}', ignored_keys => '{last_updated}');

-- An existing table may have no details.
SELECT brain.adopt_feed('workflows', 'queue', $$
    SELECT jsonb_build_object(
               'phases', coalesce(jsonb_agg(
                   CASE WHEN jsonb_typeof(to_jsonb(q) -> 'details') = 'object' THEN to_jsonb(q) -> 'details'
                        ELSE '{}' END
                   || jsonb_strip_nulls(jsonb_build_object(
                       'queue_id', queue_id, 'issue_number', issue_number, 'parent_issue', parent_issue,
                       'phase', phase, 'status', status, 'priority', priority,
                       'created_at', brain.iso_time(created_at), 'updated_at', brain.iso_time(updated_at)))
                   || CASE WHEN metadata IS NULL THEN '{}' ELSE jsonb_build_object('metadata', metadata) END
                   ORDER BY priority, queue_id), '[]'),
               'total', count(*),
               'paused', coalesce((SELECT paused FROM public.phase_queue_state), false))
      FROM public.phase_queue q
$$, '{phase_queue,phase_queue_state}');

SELECT brain.adopt_feed('workflows', 'system-status', $$
    SELECT coalesce(details, '{}') || jsonb_build_object('overall_status', overall_status) FROM public.system_status
$$, '{system_status}');

SELECT brain.adopt_feed('workflows', 'webhook-status', $$
    SELECT coalesce(details, '{}') || jsonb_build_object('status', status) FROM public.webhook_status
$$, '{webhook_status}');
