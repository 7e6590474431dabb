-- public.messages: the messages of conversations.

RESET ROLE;

SELECT brain.adopt_table('cloud_agents', 'public.messages',
    channel => 'messages',
    required => '{id,conversation_id,sender,content}',
    wanted => '{created_at}',
    definition => $table$
CREATE TABLE public.messages (
    id              text PRIMARY KEY DEFAULT gen_random_uuid()::text,
    conversation_id text NOT NULL,
    sender          text NOT NULL,
    content         text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now()
);
$table$);
