-- name: own_message
-- A stored message of its sender, whether or not the sender is still a member.
SELECT * FROM message_states WHERE sender_id = $1 AND id = $2

-- name: visible_message
-- A message, for one who may read it.
SELECT s.*
FROM message_states AS s
JOIN members AS mine ON mine.conversation_id = s.conversation_id AND s.seq > mine.joined_seq
WHERE mine.user_id = $1 AND s.id = $2

-- name: history_before
-- The newest messages below a seq that a member may read, and the rev of the same snapshot.
SELECT c.rev, (
    SELECT array_agg(page.message ORDER BY (page.message).seq)
    FROM (SELECT s AS message FROM message_states AS s
          WHERE s.conversation_id = mine.conversation_id AND s.seq > mine.joined_seq AND s.seq < $3
          ORDER BY s.seq DESC LIMIT $4) AS page) AS items
FROM members AS mine JOIN conversations AS c ON c.id = mine.conversation_id
WHERE mine.user_id = $1 AND mine.conversation_id = $2

-- name: history_after
-- The oldest messages above a seq that a member may read, and the rev of the same snapshot.
SELECT c.rev, (
    SELECT array_agg(page.message ORDER BY (page.message).seq)
    FROM (SELECT s AS message FROM message_states AS s
          WHERE s.conversation_id = mine.conversation_id AND s.seq > greatest($3, mine.joined_seq)
          ORDER BY s.seq LIMIT $4) AS page) AS items
FROM members AS mine JOIN conversations AS c ON c.id = mine.conversation_id
WHERE mine.user_id = $1 AND mine.conversation_id = $2

-- name: conversation_of
-- The conversation of a message, for one who may read it.
SELECT m.conversation_id
FROM messages AS m JOIN members AS mine ON mine.conversation_id = m.conversation_id AND m.seq > mine.joined_seq
WHERE mine.user_id = $1 AND m.id = $2

-- name: lock_conversation_of
-- Lock the conversation of a message for one who may read it; anyone else waits for nothing and gets nothing.
SELECT c.id FROM conversations AS c
WHERE c.id = (
    SELECT m.conversation_id
    FROM messages AS m
    JOIN members AS mine ON mine.conversation_id = m.conversation_id AND m.seq > mine.joined_seq
    WHERE mine.user_id = $1 AND m.id = $2)
FOR NO KEY UPDATE

-- name: message_and_role
-- A message, with what decides about what its reader may do to it.
SELECT s.*, c.kind, mine.role
FROM message_states AS s
JOIN conversations AS c ON c.id = s.conversation_id
JOIN members AS mine ON mine.conversation_id = s.conversation_id AND s.seq > mine.joined_seq
WHERE mine.user_id = $1 AND s.id = $2

-- name: stamp_content
-- Change what a message says, under the next rev of its conversation.
WITH next AS (UPDATE conversations SET rev = rev + 1 WHERE id = $1 RETURNING rev)
UPDATE messages SET content = $3, edited_at = clock_timestamp(), rev = next.rev
FROM next WHERE messages.id = $2

-- name: stamp_tombstone
-- Leave only the place of a message, under the next rev: its text and its reactions are gone for good.
WITH next AS (UPDATE conversations SET rev = rev + 1 WHERE id = $1 RETURNING rev),
     unreacted AS (DELETE FROM reactions WHERE message_id = $2)
UPDATE messages SET content = '', deleted_at = clock_timestamp(), rev = next.rev
FROM next WHERE messages.id = $2

-- name: stamp
-- Mark a message as changed, under the next rev of its conversation.
WITH next AS (UPDATE conversations SET rev = rev + 1 WHERE id = $1 RETURNING rev)
UPDATE messages SET rev = next.rev FROM next WHERE messages.id = $2

-- name: message
-- A message, in a transaction that has established who reads it.
SELECT * FROM message_states WHERE id = $1

-- name: emoji_of
-- Which emoji a message carries, and whether the user is among those who gave each.
SELECT emoji, bool_or(user_id = $2) AS is_mine FROM reactions WHERE message_id = $1 GROUP BY emoji

-- name: add_reaction
-- Give a message an emoji.
INSERT INTO reactions (message_id, user_id, emoji) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: remove_reaction
-- Take an emoji back.
DELETE FROM reactions WHERE message_id = $1 AND user_id = $2 AND emoji = $3
