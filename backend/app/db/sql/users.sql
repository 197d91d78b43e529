-- What is stored of users: the one read that almost every request makes.
-- name: find
SELECT id, name, avatar_url, nullif(profile_at, '-infinity') AS profile_at, tokens_valid_after
FROM users WHERE id = ANY ($1::text[])

-- A user as another one may see it: oneself, or with a conversation in common.
-- name: find_visible
SELECT u.id, u.name, u.avatar_url
FROM users AS u
WHERE u.id = $2 AND (u.id = $1 OR EXISTS (
    SELECT FROM members AS mine JOIN members AS theirs USING (conversation_id)
    WHERE mine.user_id = $1 AND theirs.user_id = $2))

-- The users of a development server, oldest first.
-- name: list
SELECT id, name, avatar_url FROM users ORDER BY created_at, id LIMIT $1

-- Users first, heads second, each in the order of its key: the lock order.
-- name: insert_missing
INSERT INTO users (id)
SELECT DISTINCT i.id COLLATE "C" FROM unnest($1::text[]) AS i (id) ORDER BY 1
ON CONFLICT (id) DO NOTHING

-- Without a head a user can be sent nothing: it is made in the transaction that makes the user.
-- name: insert_missing_heads
INSERT INTO inbox_heads (user_id)
SELECT DISTINCT i.id COLLATE "C" FROM unnest($1::text[]) AS i (id) ORDER BY 1
ON CONFLICT (user_id) DO NOTHING

-- A profile that came in a token issued at $4; a claim that is absent leaves what is stored. An older
-- token never renames, also when two arrive at once.
-- name: take_profile
UPDATE users SET name = coalesce($2, name), avatar_url = coalesce($3, avatar_url), profile_at = $4
WHERE id = $1 AND profile_at < $4

-- The host's word on a profile, newer than every token issued so far.
-- name: put_profile
UPDATE users SET name = $2, avatar_url = $3, profile_at = clock_timestamp()
WHERE id = $1

-- Refuses every token issued until now, by the database's clock, which all processes share.
-- name: revoke
UPDATE users SET tokens_valid_after = greatest(tokens_valid_after, clock_timestamp())
WHERE id = $1 RETURNING tokens_valid_after
