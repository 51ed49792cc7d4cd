-- Counts an order as open until it is settled, or its time is up. Again for the same order changes nothing.
--
-- KEYS[1]  the open orders, a sorted set by when each stops to count, in milliseconds since the epoch
-- ARGV[1]  id of the order
-- ARGV[2]  how long it counts, in milliseconds
-- Returns  nothing

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms - 1))
redis.call('ZADD', KEYS[1], 'NX', string.format('%.0f', now_ms + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
