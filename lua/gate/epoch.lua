-- Tells the epoch of the refresh tokens, and begins one if there is none.
--
-- Nothing is kept of a first token until it is used. So when this server has been emptied, nobody knows any more which
-- of them were used: those of an epoch that is gone are refused, all of them.
--
-- KEYS[1]  the epoch, a string
-- ARGV[1]  name for a new epoch, drawn at random
-- Returns  {epoch, now_us}, now in microseconds since the epoch of Unix by the clock of this server

redis.call('SET', KEYS[1], ARGV[1], 'NX')

local time = redis.call('TIME')
return {redis.call('GET', KEYS[1]), time[1] * 1000000 + time[2]}
