-- Reads the holds of some orders of one event.
--
-- KEYS   1 the holds
-- ARGV   orders, at least one
-- Returns one for each order: the hold as reserve.lua stores it, nil if there is none.

return redis.call('HMGET', KEYS[1], unpack(ARGV))
