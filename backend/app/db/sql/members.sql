-- name: standing
-- A member's role, and the state of the conversation that rules about members look at.
SELECT c.kind, c.title, c.rev, mine.role,
       (SELECT count(*) FROM members AS m WHERE m.conversation_id = c.id) AS member_count,
       (SELECT count(*) FROM members AS m WHERE m.conversation_id = c.id AND m.role = 'owner') AS owner_count
FROM members AS mine JOIN conversations AS c ON c.id = mine.conversation_id
WHERE mine.user_id = $1 AND mine.conversation_id = $2

-- name: member
-- One member as the others see one.
SELECT m.user_id AS id, u.name, u.avatar_url, m.role, m.last_read_seq
FROM members AS m JOIN users AS u ON u.id = m.user_id
WHERE m.conversation_id = $1 AND m.user_id = $2

-- name: members_after
-- The members above a user id, in the order of their ids, for one of them.
SELECT m.user_id AS id, u.name, u.avatar_url, m.role, m.last_read_seq
FROM members AS mine
JOIN members AS m ON m.conversation_id = mine.conversation_id
JOIN users AS u ON u.id = m.user_id
WHERE mine.user_id = $1 AND mine.conversation_id = $2 AND m.user_id > $3
ORDER BY m.user_id LIMIT $4

-- name: is_member
-- Whether a user is a member.
SELECT EXISTS (SELECT FROM members WHERE user_id = $1 AND conversation_id = $2)

-- name: joined_since
-- Who joined when a message was there already, and so may not read it.
SELECT user_id FROM members WHERE conversation_id = $1 AND joined_seq >= $2

-- name: create_members
-- The members of a new conversation, in lock order.
INSERT INTO members (conversation_id, user_id, role)
SELECT $1, wanted.id, CASE WHEN wanted.id = $3 THEN 'owner' ELSE 'member' END
FROM unnest($2::text[]) AS wanted (id) ORDER BY wanted.id COLLATE "C"

-- name: add_member
-- Let a user in; what was sent before is neither readable nor unread.
INSERT INTO members (conversation_id, user_id, role, joined_seq, last_read_seq)
SELECT c.id, $2, $3, c.last_seq, c.last_seq FROM conversations AS c WHERE c.id = $1

-- name: set_role
-- Make a member an owner, or an owner a member.
UPDATE members SET role = $3 WHERE conversation_id = $1 AND user_id = $2

-- name: remove_member
-- End a membership; gives a row if there was one.
DELETE FROM members WHERE conversation_id = $1 AND user_id = $2 RETURNING true

-- name: promote_oldest
-- Make whoever has been a member longest an owner, if nobody is.
UPDATE members SET role = 'owner'
WHERE (conversation_id, user_id) IN (
    SELECT conversation_id, user_id FROM members WHERE conversation_id = $1 ORDER BY joined_at, user_id LIMIT 1)
  AND NOT EXISTS (SELECT FROM members WHERE conversation_id = $1 AND role = 'owner')
RETURNING user_id

-- name: advance_read_position
-- Move a read position forward, to the newest message at most; gives a row only if it moved, with
-- no more members than asked for. $5 is how long to wait for it if it is held: whatever this joins comes
-- before the wait.
UPDATE members AS m SET last_read_seq = least($3, c.last_seq)
FROM conversations AS c, (SELECT set_config('lock_timeout', $5, true) AS lock_timeout OFFSET 0) AS patience
WHERE patience.lock_timeout <> '' AND c.id = m.conversation_id AND m.user_id = $1 AND m.conversation_id = $2
  AND m.last_read_seq < least($3, c.last_seq)
RETURNING m.last_read_seq, c.last_seq - m.last_read_seq AS unread, clock_timestamp() AS read_at,
          array(SELECT o.user_id::text FROM members AS o WHERE o.conversation_id = $2 LIMIT $4) AS member_ids

-- name: read_position
-- Where a member has read to, and how many messages come after.
SELECT m.last_read_seq, c.last_seq - m.last_read_seq AS unread
FROM members AS m JOIN conversations AS c ON c.id = m.conversation_id
WHERE m.user_id = $1 AND m.conversation_id = $2

-- name: audience
-- Members of a conversation, no more than asked for, for one of them.
SELECT array(SELECT m.user_id::text FROM members AS m WHERE m.conversation_id = mine.conversation_id LIMIT $3)
FROM members AS mine WHERE mine.user_id = $1 AND mine.conversation_id = $2

-- name: user_ids
-- All members of a conversation.
SELECT m.user_id FROM members AS m WHERE m.conversation_id = $1
