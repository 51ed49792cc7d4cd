-- Reads the entries of revoke.lua, the oldest first.
--
-- KEYS[1]  the entries by when they were written, a sorted set in microseconds since the epoch
-- ARGV[1]  since when, in microseconds since the epoch; what was written at that very time is read again
-- ARGV[2]  most entries to read
-- Returns  {entry, written_us, entry, written_us, ...}

return redis.call('ZRANGE', KEYS[1], ARGV[1], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
