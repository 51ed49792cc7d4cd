-- Counts an order as open no longer: it is being paid, or has ended.
--
-- KEYS[1]  the open orders, a sorted set (see placed.lua)
-- ARGV[1]  id of the order
-- Returns  nothing

redis.call('ZREM', KEYS[1], ARGV[1])
