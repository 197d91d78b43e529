-- name: lock_conversation
-- Lock a conversation for one of its members; anyone else waits for nothing and gets nothing.
SELECT c.id FROM conversations AS c
WHERE c.id = $2 AND EXISTS (SELECT FROM members AS mine WHERE mine.conversation_id = c.id AND mine.user_id = $1)
FOR NO KEY UPDATE

-- name: next_rev
-- Take the next rev of a conversation.
UPDATE conversations SET rev = rev + 1 WHERE id = $1 RETURNING rev

-- name: count_change
-- Count one change for every member, and for those who just left.
SELECT user_id, change FROM count_change($1, $2)

-- name: changes_after
-- Everything that is newer than a rev, as one member sees it, in one snapshot. No rev is below its
-- message's seq (a send takes one of each), so those who joined late skip what was there before.
SELECT s.*, mine.user_id AS reader_id, mine.role, mine.joined_seq, mine.last_read_seq, mine.muted_until, mine.hidden, (
    SELECT array_agg(page.message ORDER BY (page.message).rev)
    FROM (SELECT m AS message FROM message_states AS m
          WHERE m.conversation_id = mine.conversation_id
            AND m.rev > greatest($3, mine.joined_seq) AND m.seq > mine.joined_seq
          ORDER BY m.rev LIMIT $4) AS page) AS items,
    positions.user_ids, positions.seqs
FROM members AS mine
JOIN conversation_states AS s ON s.id = mine.conversation_id
CROSS JOIN LATERAL (
    SELECT array_agg(m.user_id::text ORDER BY m.user_id) AS user_ids,
           array_agg(m.last_read_seq ORDER BY m.user_id) AS seqs
    FROM members AS m
    WHERE m.conversation_id = mine.conversation_id
      AND (m.user_id = mine.user_id OR s.member_count <= $5)) AS positions
WHERE mine.user_id = $1 AND mine.conversation_id = $2
