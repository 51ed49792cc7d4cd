-- Disarms the timers of one event that ended before its time.
--
-- KEYS[1]  timer of the opening
-- KEYS[2]  timer of the closing
-- Returns  how many timers were armed (0, 1 or 2)

return redis.call('DEL', KEYS[1], KEYS[2])
