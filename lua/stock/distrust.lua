-- Makes an event NOT_READY until it was compared with the ledger: Redis was found to have gone back to an earlier copy
-- of it while the server ran, which its run does not show.
--
-- KEYS   1 the event
-- ARGV   none
-- Returns 1 if it was compared before, 0 if not, or if it is not staged.

return redis.call('HDEL', KEYS[1], 'run_id')
