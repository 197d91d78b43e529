-- Rows for the bench, made faster than through the API and the same as if they had come that way.

-- Direct conversations of one user with many. $1 the one, $2 the others.
-- name: direct_conversations
INSERT INTO conversations (id, kind, direct_a, direct_b, created_by)
SELECT gen_random_uuid(), 'direct', least($1 COLLATE "C", other.id COLLATE "C"),
       greatest($1 COLLATE "C", other.id COLLATE "C"), $1
FROM unnest($2::text[]) AS other (id)
ON CONFLICT (direct_a, direct_b) DO NOTHING

-- name: direct_members
INSERT INTO members (conversation_id, user_id)
SELECT c.id, pair.user_id
FROM conversations AS c, unnest(ARRAY[c.direct_a, c.direct_b]) AS pair (user_id)
WHERE c.created_by = $1 AND c.kind = 'direct'
ON CONFLICT DO NOTHING

-- A group with its members. $1 id, $2 owner, $3 members, the owner among them.
-- name: group
WITH made AS (
    INSERT INTO conversations (id, kind, title, created_by) VALUES ($1, 'group', 'bench', $2) RETURNING id
)
INSERT INTO members (conversation_id, user_id, role)
SELECT made.id, m.user_id, CASE WHEN m.user_id = $2 THEN 'owner' ELSE 'member' END
FROM made, unnest($3::text[]) AS m (user_id)

-- $2 messages from $1 in each direct conversation that $1 has made, content $3: the messages, and their places
-- in the others' inboxes. The sender's own inbox stays as it is: nobody reads it.
-- name: missed
WITH direct AS (
    SELECT c.id, c.last_seq, c.rev, CASE WHEN c.direct_a = $1 THEN c.direct_b ELSE c.direct_a END AS other_id
    FROM conversations AS c WHERE c.created_by = $1 AND c.kind = 'direct'
), fresh AS (
    INSERT INTO messages (id, conversation_id, seq, rev, sender_id, client_message_id, request_hash, content, created_at)
    SELECT gen_random_uuid(), d.id, d.last_seq + n, d.rev + n, $1, gen_random_uuid(), '\x', $3, clock_timestamp()
    FROM direct AS d, generate_series(1, $2::integer) AS n
    RETURNING id, conversation_id, seq, created_at
)
INSERT INTO inbox (user_id, seq, message_id, created_at)
SELECT d.other_id, h.head + fresh.seq - d.last_seq, fresh.id, fresh.created_at
FROM fresh JOIN direct AS d ON d.id = fresh.conversation_id JOIN inbox_heads AS h ON h.user_id = d.other_id

-- Run in the transaction of `missed`, after it.
-- name: missed_heads
UPDATE inbox_heads AS h SET head = h.head + $2
FROM conversations AS c
WHERE c.created_by = $1 AND c.kind = 'direct' AND h.user_id = CASE WHEN c.direct_a = $1 THEN c.direct_b ELSE c.direct_a END

-- name: missed_conversations
UPDATE conversations SET last_seq = last_seq + $2, rev = rev + $2
WHERE created_by = $1 AND kind = 'direct'

-- A table of many messages in which some are of those who will ask: every $3-th, in turn, so that no two of one
-- asker are on the same page. $1 and $2 the first and the last number; $4 the writer, $5 the askers; $6 and $7
-- conversations and readers of all other messages, which nobody reads. What is asked for is in conversations that
-- the writer has made. Ids rise with time, as those of version 7 do.
-- name: history
WITH numbered AS (
    SELECT n, n % $3 = 0 AS is_asked, n / $3 - 1 AS turn, cardinality($5::text[]) AS askers,
           cardinality($7::text[]) AS others
    FROM generate_series($1::bigint, $2::bigint) AS n
), placed AS (
    SELECT n, (lpad(to_hex(n), 12, '0') || '70008000' || left(md5(n::text), 12))::uuid AS message_id,
           CASE WHEN is_asked THEN ($5::text[])[1 + turn % askers] ELSE ($7::text[])[1 + n % others] END AS reader_id,
           CASE WHEN is_asked THEN NULL ELSE ($6::uuid[])[1 + n % others] END AS conversation_id,
           CASE WHEN is_asked THEN 1 + turn / askers ELSE 1 + n / others END AS seq
    FROM numbered
), addressed AS (
    SELECT p.n, p.message_id, p.reader_id, p.seq, coalesce(p.conversation_id, c.id) AS conversation_id
    FROM placed AS p
    LEFT JOIN conversations AS c
        ON p.conversation_id IS NULL AND c.direct_a = least($4 COLLATE "C", p.reader_id COLLATE "C")
        AND c.direct_b = greatest($4 COLLATE "C", p.reader_id COLLATE "C")
), stored AS (
    INSERT INTO messages (id, conversation_id, seq, rev, sender_id, client_message_id, request_hash, content, created_at)
    SELECT message_id, conversation_id, seq, seq, $4, gen_random_uuid(), '\x', repeat('x', 40), clock_timestamp()
    FROM addressed ORDER BY n
)
INSERT INTO inbox (user_id, seq, message_id, created_at)
SELECT reader_id, seq, message_id, clock_timestamp() FROM addressed ORDER BY n

-- name: heads_of_history
UPDATE inbox_heads AS h SET head = i.head
FROM (SELECT user_id, max(seq) AS head FROM inbox GROUP BY user_id) AS i
WHERE i.user_id = h.user_id
