-- name: conversation
-- One conversation as one member sees it.
SELECT s.*, mine.user_id AS reader_id, mine.role, mine.joined_seq, mine.last_read_seq, mine.muted_until, mine.hidden
FROM members AS mine JOIN conversation_states AS s ON s.id = mine.conversation_id
WHERE mine.user_id = $1 AND mine.conversation_id = $2

-- name: conversations_of
-- A user's conversations, the most recently active first; below a place in that order, if one is given.
SELECT s.*, mine.user_id AS reader_id, mine.role, mine.joined_seq, mine.last_read_seq, mine.muted_until, mine.hidden
FROM members AS mine JOIN conversation_states AS s ON s.id = mine.conversation_id
WHERE mine.user_id = $1 AND mine.hidden = $2 
  AND ($3::timestamptz IS NULL OR (s.active_at, s.id) < ($3, $4::uuid))
ORDER BY s.active_at DESC, s.id DESC LIMIT $5

-- name: conversation_state
-- What all readers of a conversation see alike.
SELECT * FROM conversation_states WHERE id = $1

-- name: reader_states
-- What each member sees differently; of some members, or of all.
SELECT user_id AS reader_id, role, joined_seq, last_read_seq, muted_until, hidden
FROM members WHERE conversation_id = $1 AND ($2::text[] IS NULL OR user_id = ANY ($2))

-- name: unknown_users
-- Which of these ids belong to no user.
SELECT wanted.id FROM unnest($1::text[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM users AS u WHERE u.id = wanted.id COLLATE "C")

-- name: create_direct
-- Make the conversation of two users; gives no row if they have one.
INSERT INTO conversations (id, kind, direct_a, direct_b, created_by, rev)
VALUES ($1, 'direct', least($2::text COLLATE "C", $3::text COLLATE "C"),
        greatest($2::text COLLATE "C", $3::text COLLATE "C"), $2, 1)
ON CONFLICT (direct_a, direct_b) DO NOTHING RETURNING id

-- name: direct_of
-- The conversation of two users.
SELECT id FROM conversations
WHERE direct_a = least($1::text COLLATE "C", $2::text COLLATE "C")
  AND direct_b = greatest($1::text COLLATE "C", $2::text COLLATE "C")

-- name: create_group
-- Make a group; gives no row if its creator has used the key before.
INSERT INTO conversations (id, kind, title, created_by, client_conversation_id, request_hash, rev)
VALUES ($1, 'group', $2, $3, $4, $5, 1)
ON CONFLICT (created_by, client_conversation_id) DO NOTHING RETURNING id

-- name: group_of_key
-- The group that a creator made with a key, and what was asked for then.
SELECT id, request_hash FROM conversations WHERE created_by = $1 AND client_conversation_id = $2

-- name: set_title
-- Rename a group, under the next rev.
UPDATE conversations SET title = $2, rev = rev + 1 WHERE id = $1 RETURNING rev

-- name: set_own_settings
-- Change how one member sees a conversation; gives a row only if that changes anything. A setting is
-- left alone unless its flag ($3, $5) is true. Waits for a send that is under way: that one has looked already
-- for whom to show the conversation again.
UPDATE members AS m SET muted_until = CASE WHEN $3 THEN $4 ELSE m.muted_until END,
                        hidden = CASE WHEN $5 THEN $6 ELSE m.hidden END
FROM (SELECT id FROM conversations WHERE id = $2 FOR SHARE) AS c
WHERE m.user_id = $1 AND m.conversation_id = c.id
  AND (($3 AND m.muted_until IS DISTINCT FROM $4) OR ($5 AND m.hidden IS DISTINCT FROM $6))
RETURNING m.muted_until, m.hidden
