-- A task begins
INSERT INTO tasks (id, title, agent, status) VALUES ('task-123', 'Deploy', 'dev', 'running');

-- It makes progress
UPDATE tasks SET progress = 5 WHERE id = 'task-123';

-- It is completed
UPDATE tasks SET status = 'completed', progress = 11 WHERE id = 'task-123';

-- An agent works
INSERT INTO agents (id, name, status, current_task, progress)
VALUES ('agent-abc-123', 'CLOUD_ASSISTANT', 'working', 'Processing webhook event', 45);

-- It stops
UPDATE agents SET status = 'stopped' WHERE id = 'agent-abc-123';

-- A session has activity
INSERT INTO sessions (id, agent_id, last_message)
VALUES ('session-xyz-789', 'agent-abc-123', 'Processing user request...');

-- A chat message is written
INSERT INTO messages (id, conversation_id, sender, content)
VALUES ('msg-456', 'conv-123', 'ENGINEERING_LEAD_SUPERVISOR', 'Task completed successfully!');

-- A mission fails
INSERT INTO missions (id, name, priority) VALUES ('mission_123', 'Deploy Application', 'high');
UPDATE missions SET status = 'failed', error = 'Deployment failed: timeout' WHERE id = 'mission_123';

-- A workflow runs, and two phases wait
INSERT INTO workflows (id, name, status, start_time)
VALUES ('123', 'Test Workflow', 'running', '2025-12-11T10:00:00Z');
INSERT INTO phase_queue (issue_number, phase, status, priority)
VALUES ('123', 'plan', 'ready', 1), ('123', 'test', 'queued', 2);

-- The system publishes an alert
SELECT brain.publish('system', 'system_alert',
    '{"level": "warning", "message": "High memory usage detected", "details": {"memory_percent": 92.5}}');

-- All users get a notification
SELECT brain.publish('notifications', 'notification', '{"level": "success", "message": "All tests passed!"}');

-- A change that is rolled back is not sent
BEGIN; UPDATE tasks SET status = 'failed' WHERE id = 'task-123'; ROLLBACK;
