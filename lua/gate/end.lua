-- Ends a family because its owner says so: no refresh token of it is taken any more.
--
-- KEYS[1]  the family, a hash (see rotate.lua); there is none before its first token is used
-- ARGV[1]  SHA-256 of the valid token, in hex; empty if a signature has shown that the caller owns the family
-- ARGV[2]  how long a family that is not there is remembered as ended, in milliseconds: the life of its first token
-- Returns  1, or 0 and does nothing for a token that is not the valid one

local current = redis.call('HGET', KEYS[1], 'current')
if ARGV[1] ~= '' and current ~= ARGV[1] then
  return 0
end

redis.call('HSET', KEYS[1], 'current', '-')
if not current then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
