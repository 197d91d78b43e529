-- name: fetch_messages_after
-- What came after a seq in each of many inboxes, with their heads, in one snapshot: one row per message,
-- and one without a message where there is none to read. $1 user ids, $2 seqs, $3 the most messages of a
-- page, $4 the most that a replay may have, $5 bytes of text after which a page ends.
SELECT asked.ask, h.head, h.change, u.tokens_valid_after, current_epoch() AS database_epoch,
       missed.seq AS inbox_seq,
       -- Not a join: with few rows known, it would read all members of the conversation for every message.
       EXISTS (
           SELECT FROM members AS mine
           WHERE mine.conversation_id = m.conversation_id AND mine.user_id = asked.user_id AND mine.joined_seq < m.seq
       ) AS is_readable,
       m.id, m.conversation_id, m.seq, m.rev, m.sender_id, m.sender_name, m.sender_avatar, m.client_message_id,
       m.content, m.reply_to_id, m.created_at, m.edited_at, m.deleted_at, m.reactions
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (user_id, after_seq, ask)
JOIN inbox_heads AS h ON h.user_id = asked.user_id
JOIN users AS u ON u.id = asked.user_id
LEFT JOIN LATERAL (
    SELECT page.seq, page.message_id
    FROM (
        SELECT listed.seq, listed.message_id,
               sum(octet_length(t.content)) OVER (ORDER BY listed.seq
                                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
        FROM (
            SELECT i.seq, i.message_id FROM inbox AS i
            WHERE i.user_id = asked.user_id AND i.seq > asked.after_seq AND i.seq <= h.head
              AND h.head - asked.after_seq <= $4
            ORDER BY i.seq LIMIT $3
        ) AS listed LEFT JOIN messages AS t ON t.id = listed.message_id
    ) AS page
    WHERE coalesce(page.bytes_before, 0) < $5
) AS missed ON true
LEFT JOIN message_states AS m ON m.id = missed.message_id
ORDER BY asked.ask, missed.seq;

-- name: fetch_heads
-- The heads of many users: what the head check compares with what was delivered. $1 user ids.
SELECT h.user_id, h.head, h.change, u.tokens_valid_after, current_epoch() AS database_epoch
FROM inbox_heads AS h JOIN users AS u ON u.id = h.user_id
WHERE h.user_id = ANY ($1::text[]);

-- name: take_turn_to_trim
-- Gives the user behind whom retention goes on, and keeps other processes away until the commit; nothing when one
-- of them is at it, or when it is not time yet. A time further off than any pause is from a clock that was wrong.
SELECT after_user_id FROM retention
WHERE next_at NOT BETWEEN now() AND now() + interval '1 day'
FOR NO KEY UPDATE SKIP LOCKED;

-- name: trim
-- Visits the next users. $1 after which one, $2 days, $3 the most users, $4 the most rows.
SELECT removed_rows, after_user_id, is_end FROM trim_inboxes($1, $2, $3, $4);

-- name: note_trimmed
-- Says where retention goes on, and when. $1 after which user, $2 seconds.
UPDATE retention SET after_user_id = $1, next_at = now() + make_interval(secs => $2);
