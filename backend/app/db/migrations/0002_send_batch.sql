-- Many sends, one transaction (architecture.md, "Group commit"). VOLATILE on purpose: every statement
-- takes its own snapshot, so what is read after the locks is newer than the locks. A single statement
-- would decide membership from before it waited.
--
-- The arguments are parallel arrays, one entry per send. Of p_conversation_ids and p_recipient_ids exactly
-- one is not null. p_issued_ats is when the sender's token was issued; null for the host's server.
-- Returns one row: an array entry per send, from `user_ids` on one per recipient, in any order.
-- `recipient_items` says of which send, counted from 1; it is null for a batch of one. Only `created` has a
-- seq, a rev and recipients. `created_at` and `epoch` are of the whole batch.
--
-- Outcomes: created, repeat, conflict, revoked, recipient_not_found, conversation_not_found,
-- reply_not_found.
-- Raises 40001 when another transaction used one of the keys meanwhile: run it again.
--
-- The settings leave one plan for each statement, whatever the tables held when a session began: look up by
-- index what the arrays name. Planning each call anew costs more than running it, and a plan made for empty
-- tables reads them from end to end when they are full.

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
    p_lock_timeout_ms      integer,
    OUT outcomes           text[],
    OUT message_ids        uuid[],
    OUT conversation_ids   uuid[],
    OUT seqs               bigint[],
    OUT revs               bigint[],
    OUT sender_names       text[],
    OUT sender_avatars     text[],
    OUT user_ids           text[],
    OUT inbox_seqs         bigint[],
    OUT recipient_items    bigint[],
    OUT created_at         timestamptz,
    OUT epoch              text
)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_targets  uuid[] := p_conversation_ids;
    v_created  integer;
    v_inserted integer;
    v_unhide   boolean;
BEGIN
    PERFORM set_config('lock_timeout', p_lock_timeout_ms::text, true);

    -- 1. Where each goes. A direct conversation that is not found is made, and looked for once more: another
    -- transaction may have made it meanwhile.
    IF array_remove(p_recipient_ids, NULL) <> '{}' THEN
        FOR attempt IN 1..2 LOOP
            SELECT array_agg(coalesce(i.conversation_id, c.id) ORDER BY i.item) INTO v_targets
            FROM unnest(p_conversation_ids, p_recipient_ids, p_sender_ids)
                WITH ORDINALITY AS i (conversation_id, recipient_id, sender_id, item)
            LEFT JOIN conversations AS c
                ON c.direct_a = least(i.sender_id COLLATE "C", i.recipient_id COLLATE "C")
                AND c.direct_b = greatest(i.sender_id COLLATE "C", i.recipient_id COLLATE "C")
                AND i.recipient_id IS NOT NULL;
            EXIT WHEN attempt = 2 OR array_position(v_targets, NULL) IS NULL;

            -- A reply cannot open one; a repeated key and a revoked sender must not.
            WITH made AS (
                INSERT INTO conversations (id, kind, direct_a, direct_b, created_by)
                SELECT DISTINCT ON (direct_a, direct_b) i.new_id, 'direct', direct_a, direct_b, i.sender_id
                FROM (
                    SELECT u.*, least(u.sender_id COLLATE "C", u.recipient_id COLLATE "C") AS direct_a,
                           greatest(u.sender_id COLLATE "C", u.recipient_id COLLATE "C") AS direct_b
                    FROM unnest(p_sender_ids, p_recipient_ids, p_client_message_ids, p_reply_to_ids,
                                p_new_conversation_ids, p_issued_ats, v_targets)
                        WITH ORDINALITY AS u (sender_id, recipient_id, client_message_id, reply_to_id, new_id,
                                              issued_at, target, item)
                ) AS i
                WHERE i.target IS NULL AND i.reply_to_id IS NULL
                  AND NOT EXISTS (SELECT FROM users AS u
                                  WHERE u.id = i.sender_id AND i.issued_at <= date_trunc('second', u.tokens_valid_after))
                  AND EXISTS (SELECT FROM users AS u WHERE u.id = i.recipient_id)
                  AND NOT EXISTS (SELECT FROM messages AS m
                                  WHERE m.sender_id = i.sender_id AND m.client_message_id = i.client_message_id)
                ORDER BY direct_a, direct_b, i.item
                ON CONFLICT (direct_a, direct_b) DO NOTHING
                RETURNING id, direct_a, direct_b
            )
            INSERT INTO members (conversation_id, user_id)
            SELECT made.id, pair.user_id FROM made, unnest(ARRAY[made.direct_a, made.direct_b]) AS pair (user_id)
            ORDER BY made.id, pair.user_id;
        END LOOP;
    END IF;

    -- 2. Lock, then read: nobody joins, leaves or sends in these conversations until the commit. What
    -- survives the reading is numbered densely.
    PERFORM 1 FROM conversations AS c WHERE c.id = ANY (v_targets) ORDER BY c.id FOR NO KEY UPDATE;
    created_at := clock_timestamp();

    SELECT array_agg(n.outcome), array_agg(coalesce(n.stored_id, n.id)),
           array_agg(CASE WHEN n.is_created THEN n.last_seq + n.place END),
           array_agg(CASE WHEN n.is_created THEN n.rev + n.place END),
           array_agg(n.sender_name), array_agg(n.sender_avatar),
           count(*) FILTER (WHERE n.is_created), bool_or(n.has_hidden)
    INTO outcomes, message_ids, seqs, revs, sender_names, sender_avatars, v_created, v_unhide
    FROM (
        SELECT d.*, d.outcome = 'created' AS is_created,
               count(*) FILTER (WHERE d.outcome = 'created') OVER (PARTITION BY d.target ORDER BY d.item) AS place
        FROM (
            SELECT i.item, i.id, i.target, stored.id AS stored_id, c.last_seq, c.rev,
                   sender.name AS sender_name, sender.avatar_url AS sender_avatar,
                   EXISTS (SELECT FROM members AS h WHERE h.conversation_id = i.target AND h.hidden) AS has_hidden,
                   CASE
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
                       ELSE 'created'
                   END AS outcome
            FROM unnest(p_message_ids, p_sender_ids, p_client_message_ids, p_request_hashes, v_targets,
                        p_recipient_ids, p_reply_to_ids, p_issued_ats)
                WITH ORDINALITY AS i (id, sender_id, client_message_id, request_hash, target,
                                      recipient_id, reply_to_id, issued_at, item)
            LEFT JOIN users AS sender ON sender.id = i.sender_id
            LEFT JOIN messages AS stored
                ON stored.sender_id = i.sender_id AND stored.client_message_id = i.client_message_id
            LEFT JOIN members AS mine ON mine.conversation_id = i.target AND mine.user_id = i.sender_id
            LEFT JOIN conversations AS c ON c.id = i.target
        ) AS d
        ORDER BY d.item
    ) AS n;
    conversation_ids := v_targets;
    epoch := current_epoch();
    IF v_created = 0 THEN
        RETURN;
    END IF;

    -- 3. The messages, inserted in the order of their keys, and what they change of their conversations.
    INSERT INTO messages (id, conversation_id, seq, rev, sender_id, client_message_id, request_hash,
                          content, reply_to_id, created_at)
    SELECT i.id, i.target, i.seq, i.rev, i.sender_id, i.client_message_id, i.request_hash, i.content,
           i.reply_to_id, send_batch.created_at
    FROM unnest(p_message_ids, v_targets, send_batch.seqs, send_batch.revs, p_sender_ids, p_client_message_ids,
                p_request_hashes, p_contents, p_reply_to_ids)
        AS i (id, target, seq, rev, sender_id, client_message_id, request_hash, content, reply_to_id)
    WHERE i.seq IS NOT NULL
    ORDER BY i.sender_id COLLATE "C", i.client_message_id
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_inserted = ROW_COUNT;
    IF v_inserted <> v_created THEN
        RAISE EXCEPTION 'a key of this batch was used meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;

    UPDATE conversations AS c
    SET last_seq = n.seq, rev = n.rev, last_message_id = n.id, last_message_at = send_batch.created_at
    FROM (
        SELECT DISTINCT ON (u.target) u.target, u.id, u.seq, u.rev
        FROM unnest(p_message_ids, v_targets, send_batch.seqs, send_batch.revs) AS u (id, target, seq, rev)
        WHERE u.seq IS NOT NULL ORDER BY u.target, u.seq DESC
    ) AS n
    WHERE c.id = n.target;

    -- Who writes has read; who is written to sees the conversation again.
    UPDATE members AS m SET last_read_seq = greatest(m.last_read_seq, own.seq)
    FROM (
        SELECT DISTINCT ON (u.target, u.sender_id COLLATE "C") u.target, u.sender_id, u.seq
        FROM unnest(v_targets, p_sender_ids, send_batch.seqs) AS u (target, sender_id, seq)
        WHERE u.seq IS NOT NULL ORDER BY u.target, u.sender_id COLLATE "C", u.seq DESC
    ) AS own
    WHERE m.conversation_id = own.target AND m.user_id = own.sender_id;
    IF v_unhide THEN
        UPDATE members AS m SET hidden = false
        WHERE m.hidden AND m.conversation_id IN (
            SELECT u.target FROM unnest(v_targets, send_batch.seqs) AS u (target, seq) WHERE u.seq IS NOT NULL);
    END IF;

    -- 4. The heads, in the order of their users: the settings above leave no plan that takes them in another.
    -- From here to the commit these users' logs belong to this transaction: seq order is commit order.
    IF array_length(p_message_ids, 1) = 1 THEN
        WITH moved AS (
            UPDATE inbox_heads AS h SET head = h.head + 1
            FROM (SELECT m.user_id FROM members AS m WHERE m.conversation_id = v_targets[1] ORDER BY m.user_id) AS a
            WHERE h.user_id = a.user_id
            RETURNING h.user_id, h.head
        ), logged AS (
            INSERT INTO inbox (user_id, seq, message_id, created_at)
            SELECT moved.user_id, moved.head, p_message_ids[1], send_batch.created_at FROM moved
        )
        SELECT array_agg(moved.user_id::text), array_agg(moved.head) INTO user_ids, inbox_seqs FROM moved;
    ELSE
        WITH moved AS (
            UPDATE inbox_heads AS h SET head = h.head + a.sent
            FROM (
                SELECT m.user_id, count(*) AS sent, array_agg(u.item ORDER BY u.item) AS items
                FROM unnest(v_targets, send_batch.seqs) WITH ORDINALITY AS u (target, seq, item)
                JOIN members AS m ON m.conversation_id = u.target
                WHERE u.seq IS NOT NULL GROUP BY m.user_id ORDER BY m.user_id
            ) AS a
            WHERE h.user_id = a.user_id
            RETURNING h.user_id, h.head - a.sent AS before, a.items
        ), placed AS (
            SELECT moved.user_id, moved.before + x.place AS seq, x.item
            FROM moved, unnest(moved.items) WITH ORDINALITY AS x (item, place)
        ), logged AS (
            INSERT INTO inbox (user_id, seq, message_id, created_at)
            SELECT placed.user_id, placed.seq, p_message_ids[placed.item], send_batch.created_at FROM placed
        )
        SELECT array_agg(placed.user_id::text), array_agg(placed.seq), array_agg(placed.item)
        INTO user_ids, inbox_seqs, recipient_items FROM placed;
    END IF;
END
$$;
