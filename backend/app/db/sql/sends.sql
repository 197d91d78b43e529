-- name: held_rows
-- Which rows that these sends would lock are locked by others just now (conversations, senders' memberships and heads
-- of users), and by whom: `xmax` stays the same as long as nobody else gets the row. It waits for none, and keeps those
-- that are free until its transaction ends.
WITH targets AS MATERIALIZED (
    SELECT i.item, i.sender_id, i.recipient_id, coalesce(i.conversation_id, c.id) AS id
    FROM unnest($1::uuid[], $2::text[], $3::text[])
        WITH ORDINALITY AS i (conversation_id, sender_id, recipient_id, item)
    LEFT JOIN conversations AS c
        ON c.direct_a = least(i.sender_id COLLATE "C", i.recipient_id COLLATE "C")
        AND c.direct_b = greatest(i.sender_id COLLATE "C", i.recipient_id COLLATE "C")
        AND i.recipient_id IS NOT NULL
), needed AS MATERIALIZED (
    SELECT t.item, m.user_id FROM targets AS t JOIN members AS m ON m.conversation_id = t.id
    UNION ALL
    SELECT t.item, h.user_id FROM targets AS t JOIN inbox_heads AS h ON h.user_id IN (t.sender_id, t.recipient_id)
    WHERE t.id IS NULL
), free_heads AS MATERIALIZED (
    SELECT h.user_id FROM inbox_heads AS h WHERE h.user_id IN (SELECT n.user_id FROM needed AS n)
    FOR NO KEY UPDATE SKIP LOCKED
), free_conversations AS MATERIALIZED (
    SELECT c.id FROM conversations AS c WHERE c.id IN (SELECT t.id FROM targets AS t)
    FOR NO KEY UPDATE SKIP LOCKED
), free_members AS MATERIALIZED (
    SELECT t.item
    FROM targets AS t JOIN members AS m ON m.conversation_id = t.id AND m.user_id = t.sender_id
    FOR NO KEY UPDATE OF m SKIP LOCKED
)
SELECT n.item, h.user_id::text AS name, h.xmax::text AS holder
FROM needed AS n JOIN inbox_heads AS h ON h.user_id = n.user_id
WHERE n.user_id NOT IN (SELECT f.user_id FROM free_heads AS f)
UNION ALL
SELECT t.item, c.id::text, c.xmax::text
FROM targets AS t JOIN conversations AS c ON c.id = t.id
WHERE t.id NOT IN (SELECT f.id FROM free_conversations AS f)
UNION ALL
SELECT t.item, m.conversation_id::text || ' ' || m.user_id, m.xmax::text
FROM targets AS t JOIN members AS m ON m.conversation_id = t.id AND m.user_id = t.sender_id
WHERE t.item NOT IN (SELECT f.item FROM free_members AS f)
