-- A new history: every cursor of the one before is answered with `resync`.
-- name: renew_epoch
UPDATE meta SET value = gen_random_uuid()::text WHERE key = 'epoch' RETURNING value

-- What an operator may have set wrongly, and the server's clock.
-- name: facts
SELECT current_setting('server_version_num')::int AS version,
       current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       current_setting('max_connections')::int AS max_connections,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       (SELECT count(*) FROM pg_stat_replication) AS standbys,
       pg_is_in_recovery() AS is_standby,
       clock_timestamp() AS now
