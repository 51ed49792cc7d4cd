-- Returns the epoch of the refresh tokens, and begins one if there is none.
--
-- A first token is not stored until it is used. So once this server was emptied, it is not known which of them were
-- used: all tokens of a lost epoch are refused.
--
-- KEYS[1]  the epoch, a string
-- ARGV[1]  name for a new epoch, drawn at random
-- Returns  {epoch, now_us}, now in microseconds since the epoch of Unix by the clock of this server

redis.call('SET', KEYS[1], ARGV[1], 'NX')

local time = redis.call('TIME')
return {redis.call('GET', KEYS[1]), time[1] * 1000000 + time[2]}
