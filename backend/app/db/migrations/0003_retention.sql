-- Retention goes from user to user along the primary key of `inbox` (sql/inbox.sql, `trim`). The index by time
-- that it used, and every insert paid for, rules nothing out once VACUUM has given pages back: new rows go into
-- old pages, and a range of pages that has held two times is never narrowed again.
DROP INDEX inbox_by_time;

-- How far it has come: one row, locked by the process that trims for as long as one piece takes.
CREATE TABLE retention (
    after_user_id text COLLATE "C" NOT NULL,  -- '' before the first
    next_at       timestamptz NOT NULL        -- not before this
);
INSERT INTO retention VALUES ('', now());
