-- Opens a family of refresh tokens: one login, of which exactly one token is valid at any time.
--
-- Only the SHA-256 of a token is kept, so whoever reads Redis cannot refresh with what is there.
--
-- KEYS[1]  the family, a hash: user, role, current (SHA-256 of the valid token in hex)
-- ARGV[1]  user id
-- ARGV[2]  role
-- ARGV[3]  SHA-256 of the first token in hex
-- ARGV[4]  life of the token in milliseconds
-- Returns  now in microseconds since the epoch, by the clock of this server

redis.call('HSET', KEYS[1], 'user', ARGV[1], 'role', ARGV[2], 'current', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])

local time = redis.call('TIME')
return time[1] * 1000000 + time[2]
