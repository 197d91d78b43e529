-- Many sends, one transaction (architecture.md, "Group commit"). VOLATILE on purpose: every statement
-- takes its own snapshot, so what is read after the locks is newer than the locks. A single statement
-- would decide membership from before it waited.
--
-- Arrays are parallel, one entry per send. Of p_conversation_ids and p_recipient_ids exactly one is
-- not null. p_issued_ats is when the sender's token was issued; null for the host's server.
-- Returns one row per send, in any order; `item` counts from 1.
--
-- Outcomes: created, repeat, conflict, revoked, recipient_not_found, conversation_not_found,
-- reply_not_found. Only `created` has a seq, a rev and the inbox positions.
-- Raises 40001 when another transaction used one of the keys meanwhile: run it again.

CREATE FUNCTION send_batch(
    p_message_ids          uuid[],
    p_sender_ids           text[],
    p_client_message_ids   uuid[],
    p_request_hashes       bytea[],
    p_contents             text[],
    p_conversation_ids     uuid[],
    p_recipient_ids        text[],
    p_reply_to_ids         uuid[],
    p_new_conversation_ids uuid[],
    p_issued_ats           timestamptz[],
    p_lock_timeout_ms      integer
)
RETURNS TABLE (
    item            integer,
    outcome         text,
    message_id      uuid,
    conversation_id uuid,
    seq             bigint,
    rev             bigint,
    created_at      timestamptz,
    sender_name     text,
    sender_avatar   text,
    user_ids        text[],
    inbox_seqs      bigint[],
    epoch           text
)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    v_targets  uuid[];
    v_outcomes text[];
    v_stored   uuid[];
    v_now      timestamptz;
    v_created  integer;
    v_inserted integer;
BEGIN
    PERFORM set_config('lock_timeout', p_lock_timeout_ms::text, true);

    -- 1. Direct conversations that do not exist yet. A reply cannot open one; a repeated key and a
    -- revoked sender must not.
    IF array_remove(p_recipient_ids, NULL) <> '{}' THEN
        WITH made AS (
            INSERT INTO conversations (id, kind, direct_a, direct_b, created_by)
            SELECT DISTINCT ON (direct_a, direct_b) i.new_id, 'direct', direct_a, direct_b, i.sender_id
            FROM (
                SELECT u.*, least(u.sender_id COLLATE "C", u.recipient_id COLLATE "C") AS direct_a,
                       greatest(u.sender_id COLLATE "C", u.recipient_id COLLATE "C") AS direct_b
                FROM unnest(p_sender_ids, p_recipient_ids, p_client_message_ids, p_reply_to_ids,
                            p_new_conversation_ids, p_issued_ats)
                    WITH ORDINALITY AS u (sender_id, recipient_id, client_message_id, reply_to_id, new_id,
                                          issued_at, item)
            ) AS i
            WHERE i.recipient_id IS NOT NULL AND i.reply_to_id IS NULL
              AND NOT EXISTS (SELECT FROM users AS u
                              WHERE u.id = i.sender_id AND i.issued_at <= date_trunc('second', u.tokens_valid_after))
              AND EXISTS (SELECT FROM users AS u WHERE u.id = i.recipient_id)
              AND NOT EXISTS (SELECT FROM conversations AS c
                              WHERE c.direct_a = i.direct_a AND c.direct_b = i.direct_b)
              AND NOT EXISTS (SELECT FROM messages AS m
                              WHERE m.sender_id = i.sender_id AND m.client_message_id = i.client_message_id)
            ORDER BY direct_a, direct_b, i.item
            ON CONFLICT (direct_a, direct_b) DO NOTHING
            RETURNING id, direct_a, direct_b
        )
        INSERT INTO members (conversation_id, user_id)
        SELECT made.id, pair.user_id FROM made, unnest(ARRAY[made.direct_a, made.direct_b]) AS pair (user_id)
        ORDER BY made.id, pair.user_id;
    END IF;

    SELECT array_agg(CASE WHEN i.recipient_id IS NULL THEN i.conversation_id ELSE c.id END ORDER BY i.item)
    INTO v_targets
    FROM unnest(p_conversation_ids, p_recipient_ids, p_sender_ids)
        WITH ORDINALITY AS i (conversation_id, recipient_id, sender_id, item)
    LEFT JOIN conversations AS c
        ON i.recipient_id IS NOT NULL
        AND c.direct_a = least(i.sender_id COLLATE "C", i.recipient_id COLLATE "C")
        AND c.direct_b = greatest(i.sender_id COLLATE "C", i.recipient_id COLLATE "C");

    -- 2. Lock, then read: nobody joins, leaves or sends in these conversations until the commit.
    PERFORM 1 FROM conversations AS c WHERE c.id = ANY (v_targets) ORDER BY c.id FOR NO KEY UPDATE;
    v_now := clock_timestamp();

    SELECT array_agg(decided.outcome ORDER BY decided.item), array_agg(decided.stored_id ORDER BY decided.item),
           count(*) FILTER (WHERE decided.outcome = 'created')
    INTO v_outcomes, v_stored, v_created
    FROM (
        SELECT i.item, stored.id AS stored_id, CASE
            WHEN i.issued_at <= date_trunc('second', sender.tokens_valid_after) THEN 'revoked'
            WHEN stored.request_hash = i.request_hash THEN 'repeat'
            WHEN stored.id IS NOT NULL THEN 'conflict'
            WHEN i.target IS NULL AND NOT EXISTS (SELECT FROM users AS u WHERE u.id = i.recipient_id)
                THEN 'recipient_not_found'
            WHEN i.target IS NULL AND i.reply_to_id IS NOT NULL THEN 'reply_not_found'
            WHEN mine.user_id IS NULL THEN 'conversation_not_found'
            WHEN i.reply_to_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM messages AS r
                WHERE r.id = i.reply_to_id AND r.conversation_id = i.target AND r.seq > mine.joined_seq)
                THEN 'reply_not_found'
            ELSE 'created' END AS outcome
        FROM unnest(p_sender_ids, p_client_message_ids, p_request_hashes, v_targets, p_recipient_ids,
                    p_reply_to_ids, p_issued_ats)
            WITH ORDINALITY AS i (sender_id, client_message_id, request_hash, target, recipient_id,
                                  reply_to_id, issued_at, item)
        LEFT JOIN users AS sender ON sender.id = i.sender_id
        LEFT JOIN messages AS stored
            ON stored.sender_id = i.sender_id AND stored.client_message_id = i.client_message_id
        LEFT JOIN members AS mine ON mine.conversation_id = i.target AND mine.user_id = i.sender_id
    ) AS decided;

    -- 3. The messages, numbered densely over what survived, inserted in the order of their keys.
    INSERT INTO messages (id, conversation_id, seq, rev, sender_id, client_message_id, request_hash,
                          content, reply_to_id, created_at)
    SELECT i.id, i.target, c.last_seq + i.place, c.rev + i.place, i.sender_id, i.client_message_id,
           i.request_hash, i.content, i.reply_to_id, v_now
    FROM (
        SELECT u.*, row_number() OVER (PARTITION BY u.target ORDER BY u.item) AS place
        FROM unnest(p_message_ids, v_targets, p_sender_ids, p_client_message_ids, p_request_hashes,
                    p_contents, p_reply_to_ids, v_outcomes)
            WITH ORDINALITY AS u (id, target, sender_id, client_message_id, request_hash, content,
                                  reply_to_id, outcome, item)
        WHERE u.outcome = 'created'
    ) AS i
    JOIN conversations AS c ON c.id = i.target
    ORDER BY i.sender_id COLLATE "C", i.client_message_id
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_inserted = ROW_COUNT;
    IF v_inserted <> v_created THEN
        RAISE EXCEPTION 'a key of this batch was used meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;

    IF v_created > 0 THEN
        UPDATE conversations AS c
        SET last_seq = c.last_seq + n.sent, rev = c.rev + n.sent, last_message_id = n.last_id, last_message_at = v_now
        FROM (
            SELECT u.target, count(*) AS sent, (array_agg(u.id ORDER BY u.item DESC))[1] AS last_id
            FROM unnest(p_message_ids, v_targets, v_outcomes) WITH ORDINALITY AS u (id, target, outcome, item)
            WHERE u.outcome = 'created' GROUP BY u.target
        ) AS n
        WHERE c.id = n.target;

        -- Who writes has read; who is written to sees the conversation again.
        UPDATE members AS m
        SET last_read_seq = greatest(m.last_read_seq, own.seq)
        FROM (
            SELECT u.target, u.sender_id, max(s.seq) AS seq
            FROM unnest(p_message_ids, v_targets, p_sender_ids, v_outcomes) AS u (id, target, sender_id, outcome)
            JOIN messages AS s ON s.id = u.id
            WHERE u.outcome = 'created' GROUP BY u.target, u.sender_id
        ) AS own
        WHERE m.conversation_id = own.target AND m.user_id = own.sender_id;
        UPDATE members AS m SET hidden = false
        WHERE m.hidden AND m.conversation_id IN (
            SELECT u.target FROM unnest(v_targets, v_outcomes) AS u (target, outcome) WHERE u.outcome = 'created');

        -- 4. The heads, locked in the order of their users. From here to the commit these users' logs
        -- belong to this transaction: seq order is commit order.
        PERFORM 1 FROM inbox_heads AS h
        WHERE h.user_id IN (
            SELECT m.user_id FROM members AS m
            WHERE m.conversation_id IN (
                SELECT u.target FROM unnest(v_targets, v_outcomes) AS u (target, outcome)
                WHERE u.outcome = 'created'))
        ORDER BY h.user_id FOR NO KEY UPDATE;
    END IF;

    RETURN QUERY
    WITH moved AS (
        UPDATE inbox_heads AS h SET head = h.head + a.sent
        FROM (
            SELECT m.user_id, count(*) AS sent, array_agg(u.item ORDER BY u.item) AS items,
                   array_agg(u.id ORDER BY u.item) AS ids
            FROM unnest(p_message_ids, v_targets, v_outcomes) WITH ORDINALITY AS u (id, target, outcome, item)
            JOIN members AS m ON m.conversation_id = u.target
            WHERE u.outcome = 'created' GROUP BY m.user_id
        ) AS a
        WHERE h.user_id = a.user_id
        RETURNING h.user_id, h.head - a.sent AS before, a.items, a.ids
    ), logged AS (
        INSERT INTO inbox (user_id, seq, message_id, created_at)
        SELECT moved.user_id, moved.before + x.place, x.id, v_now
        FROM moved, unnest(moved.ids) WITH ORDINALITY AS x (id, place)
    ), addressed AS (
        SELECT x.item, array_agg(moved.user_id::text) AS user_ids, array_agg(moved.before + x.place) AS seqs
        FROM moved, unnest(moved.items) WITH ORDINALITY AS x (item, place)
        GROUP BY x.item
    )
    SELECT i.item::integer, i.outcome, coalesce(i.stored_id, i.id), i.target, m.seq, m.rev, v_now,
           sender.name, sender.avatar_url, addressed.user_ids, addressed.seqs, current_epoch()
    FROM unnest(p_message_ids, v_targets, p_sender_ids, v_outcomes, v_stored)
        WITH ORDINALITY AS i (id, target, sender_id, outcome, stored_id, item)
    LEFT JOIN messages AS m ON m.id = i.id AND i.outcome = 'created'
    LEFT JOIN users AS sender ON sender.id = i.sender_id
    LEFT JOIN addressed ON addressed.item = i.item;
END
$$;
