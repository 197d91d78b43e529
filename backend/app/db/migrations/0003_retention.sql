-- Retention goes from user to user along the primary key of `inbox` (`trim_inboxes`). The index by time
-- that it used, and every insert paid for, rules nothing out once VACUUM has given pages back: new rows go into
-- old pages, and a range of pages that has held two times is never narrowed again.
DROP INDEX inbox_by_time;

-- How far it has come: one row, locked by the process that trims for as long as one piece takes.
CREATE TABLE retention (
    after_user_id text COLLATE "C" NOT NULL,  -- '' before the first
    next_at       timestamptz NOT NULL        -- not before this
);
INSERT INTO retention VALUES ('', now());

-- Removes what retention no longer keeps from the inboxes of the next users, one user after the other, each from its
-- low end: what is left has no hole. It ends after p_max_users, or p_max_rows that it had to look at beside the first
-- of each: what it reads is bounded, not only what it removes. The newest row always stays.
--
-- Rows are dated by a clock that may have been wrong, or is wrong now; but their order is true. The first recent row
-- ends it. One from the future says nothing, so it goes when one behind it is old. Thus what a clock wrote that was
-- ahead keeps nothing back; and a clock that is behind, to which all fresh rows are from the future, removes none.
CREATE FUNCTION trim_inboxes(
    p_after_user_id   text,
    p_days            integer,
    p_max_users       integer,
    p_max_rows        integer,
    OUT removed_rows  bigint,
    OUT after_user_id text,    -- the last user who is done with
    OUT is_end        boolean  -- there are no more
)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    v_oldest_kept timestamptz := now() - make_interval(days => p_days);
    v_rows_left   integer := p_max_rows;
    v_had_rows    integer;
    v_users       integer := 0;
    v_inbox       record;
    v_entry       record;
    v_last_old    bigint;
    v_removed     bigint;
BEGIN
    removed_rows := 0;
    after_user_id := p_after_user_id;
    FOR v_inbox IN
        SELECT h.user_id, h.head FROM inbox_heads AS h
        WHERE h.user_id > p_after_user_id COLLATE "C" ORDER BY h.user_id LIMIT p_max_users
    LOOP
        v_users := v_users + 1;
        v_last_old := NULL;
        v_had_rows := v_rows_left;

        -- Most have nothing to lose: one row tells. A loop would fetch ten.
        SELECT i.created_at INTO v_entry FROM inbox AS i
        WHERE i.user_id = v_inbox.user_id AND i.seq < v_inbox.head ORDER BY i.seq LIMIT 1;
        IF FOUND AND v_entry.created_at NOT BETWEEN v_oldest_kept AND now() THEN
            FOR v_entry IN
                SELECT i.seq, i.created_at FROM inbox AS i
                WHERE i.user_id = v_inbox.user_id AND i.seq < v_inbox.head ORDER BY i.seq LIMIT v_rows_left
            LOOP
                EXIT WHEN v_entry.created_at BETWEEN v_oldest_kept AND now();
                v_rows_left := v_rows_left - 1;
                IF v_entry.created_at < v_oldest_kept THEN
                    v_last_old := v_entry.seq;
                END IF;
            END LOOP;
            DELETE FROM inbox AS i WHERE i.user_id = v_inbox.user_id AND i.seq <= v_last_old;
            GET DIAGNOSTICS v_removed = ROW_COUNT;
            removed_rows := removed_rows + v_removed;
        END IF;

        -- Who was looked at in part is looked at again, unless a whole piece found nothing to remove.
        IF v_rows_left > 0 OR (v_last_old IS NULL AND v_had_rows = p_max_rows) THEN
            after_user_id := v_inbox.user_id;
        END IF;
        EXIT WHEN v_rows_left <= 0;
    END LOOP;
    is_end := v_rows_left > 0 AND v_users < p_max_users;
END
$$;
