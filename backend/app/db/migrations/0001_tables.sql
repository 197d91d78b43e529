-- Every user id is compared bytewise, here as in the server: a lock order that depends on the
-- database's locale would be a deadlock.

CREATE TABLE meta (
    key   text PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE users (
    id                 text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9._:@|+=-]{1,128}$'),
    name               text,
    avatar_url         text,
    profile_at         timestamptz NOT NULL DEFAULT '-infinity',  -- an older token never renames
    tokens_valid_after timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now()
);

-- One narrow row per user, updated by every message: free space on the page keeps the updates HOT.
CREATE TABLE inbox_heads (
    user_id text COLLATE "C" PRIMARY KEY REFERENCES users (id),
    head    bigint NOT NULL DEFAULT 0,
    change  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- The per-user log. No foreign keys: the seq is assigned under the lock of the head.
CREATE TABLE inbox (
    user_id    text COLLATE "C" NOT NULL,
    seq        bigint NOT NULL,
    message_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, seq)
);
-- Written in the order of time: a few pages per million rows are enough for retention to find the old.
CREATE INDEX inbox_by_time ON inbox USING brin (created_at);

CREATE TABLE conversations (
    id                     uuid PRIMARY KEY,
    kind                   text NOT NULL CHECK (kind IN ('direct', 'group')),
    title                  text,
    direct_a               text COLLATE "C",
    direct_b               text COLLATE "C",
    created_by             text COLLATE "C" NOT NULL,
    client_conversation_id uuid,
    request_hash           bytea,
    last_seq               bigint NOT NULL DEFAULT 0,
    rev                    bigint NOT NULL DEFAULT 0,
    last_message_id        uuid,
    last_message_at        timestamptz,
    created_at             timestamptz NOT NULL DEFAULT now(),
    UNIQUE (direct_a, direct_b),
    UNIQUE (created_by, client_conversation_id),
    CHECK ((kind = 'direct') = (direct_a IS NOT NULL)),
    CHECK ((direct_a IS NULL) = (direct_b IS NULL)),
    CHECK (direct_a < direct_b)
) WITH (fillfactor = 70);

CREATE TABLE members (
    conversation_id uuid NOT NULL REFERENCES conversations (id),
    -- Not users: a member without an inbox would silently receive nothing.
    user_id         text COLLATE "C" NOT NULL REFERENCES inbox_heads (user_id),
    role            text NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'member')),
    joined_seq      bigint NOT NULL DEFAULT 0,
    last_read_seq   bigint NOT NULL DEFAULT 0,
    muted_until     timestamptz,
    hidden          boolean NOT NULL DEFAULT false,
    joined_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (conversation_id, user_id)
) WITH (fillfactor = 80);
CREATE INDEX members_by_user ON members (user_id);
CREATE INDEX members_hidden ON members (conversation_id) WHERE hidden;

CREATE TABLE messages (
    id                uuid PRIMARY KEY,
    conversation_id   uuid NOT NULL,
    seq               bigint NOT NULL,
    rev               bigint NOT NULL,
    sender_id         text COLLATE "C" NOT NULL,
    client_message_id uuid NOT NULL,
    request_hash      bytea NOT NULL,
    content           text NOT NULL CHECK (char_length(content) <= 10000 AND octet_length(content) <= 40000),
    reply_to_id       uuid,
    created_at        timestamptz NOT NULL,
    edited_at         timestamptz,
    deleted_at        timestamptz,
    UNIQUE (conversation_id, seq),
    UNIQUE (sender_id, client_message_id)
);
CREATE INDEX messages_by_rev ON messages (conversation_id, rev);

CREATE TABLE reactions (
    message_id uuid NOT NULL REFERENCES messages (id),
    user_id    text COLLATE "C" NOT NULL,
    emoji      text COLLATE "C" NOT NULL CHECK (octet_length(emoji) BETWEEN 1 AND 64),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (message_id, user_id, emoji)
);

INSERT INTO meta (key, value) VALUES
    ('epoch', gen_random_uuid()::text),
    ('signing_key', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));

-- What a cursor's epoch is made from: a restored database (`gapless restored` changes meta.epoch)
-- and a failed-over one (another timeline) must never be taken for the one the client knew.
CREATE FUNCTION current_epoch() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT value || ':' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
    FROM meta WHERE key = 'epoch'
$$;

-- The reactions of one message as [{emoji, count, user_ids}], oldest emoji first; at most 20 ids each.
CREATE FUNCTION message_reactions(p_message_id uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object('emoji', emoji, 'count', total, 'user_ids', user_ids)
                     ORDER BY first_at, emoji)
    FROM (
        SELECT emoji, count(*) AS total, min(created_at) AS first_at,
               (array_agg(user_id ORDER BY created_at, user_id))[1:20] AS user_ids
        FROM reactions WHERE message_id = p_message_id GROUP BY emoji
    ) AS by_emoji
$$;

-- A message as everyone reads it: what `Message.from_row` (events.py) takes.
CREATE VIEW message_states AS
SELECT m.id, m.conversation_id, m.seq, m.rev, m.sender_id, s.name AS sender_name, s.avatar_url AS sender_avatar,
       m.client_message_id, m.content, m.reply_to_id, m.created_at, m.edited_at, m.deleted_at,
       CASE WHEN m.deleted_at IS NULL THEN message_reactions(m.id) END AS reactions
FROM messages AS m LEFT JOIN users AS s ON s.id = m.sender_id;

-- A conversation without its reader: what `as_seen_by` (db/conversations.py) joins with a reader's
-- membership. The members are those of the first page of the members list.
CREATE VIEW conversation_states AS
SELECT c.id, c.kind, c.title, c.last_seq, c.rev, coalesce(c.last_message_at, c.created_at) AS active_at,
       (SELECT count(*) FROM members AS m WHERE m.conversation_id = c.id) AS member_count,
       (SELECT jsonb_agg(to_jsonb(first_page) ORDER BY first_page.id)
        FROM (SELECT m.user_id AS id, u.name, u.avatar_url, m.role, m.last_read_seq
              FROM members AS m JOIN users AS u ON u.id = m.user_id
              WHERE m.conversation_id = c.id ORDER BY m.user_id LIMIT 20) AS first_page) AS members,
       (SELECT s FROM message_states AS s WHERE s.id = c.last_message_id) AS last_message
FROM conversations AS c;

-- Counts one change for every member of a conversation and for those in p_also (who just left it), in
-- lock order. The caller holds the conversation's lock, so the members cannot change underneath.
CREATE FUNCTION count_change(p_conversation_id uuid, p_also text[] DEFAULT '{}')
RETURNS TABLE (user_id text, change bigint) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM inbox_heads AS h
    WHERE h.user_id IN (SELECT m.user_id FROM members AS m WHERE m.conversation_id = p_conversation_id
                        UNION SELECT also COLLATE "C" FROM unnest(p_also) AS also)
    ORDER BY h.user_id FOR NO KEY UPDATE;
    RETURN QUERY
    UPDATE inbox_heads AS h SET change = h.change + 1
    WHERE h.user_id IN (SELECT m.user_id FROM members AS m WHERE m.conversation_id = p_conversation_id
                        UNION SELECT also COLLATE "C" FROM unnest(p_also) AS also)
    RETURNING h.user_id::text, h.change;
END
$$;
