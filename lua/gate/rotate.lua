-- Exchanges the valid refresh token of a family for the next one, or shuts the family.
--
-- Decides: a token that is not the valid one was used before, so either the buyer or a thief is holding a copy. Nobody
-- can tell which, so the family is shut: its `current` is emptied, which is the hash of no token. The key stays until
-- its time is up, so that later tries are told the same.
--
-- KEYS[1]  the family, a hash: user, role, current (SHA-256 of the valid token in hex, empty once it is shut),
--          first_until_ms (end of the first token's time, in milliseconds since the epoch)
-- ARGV[1]  SHA-256 of the token presented, in hex
-- ARGV[2]  SHA-256 of the next token, in hex
-- ARGV[3]  life of the next token in milliseconds
-- Returns  {'rotated', user, role, now_us} | {'reused'} | {'unknown'} (never opened, or its time is up)

local family = redis.call('HMGET', KEYS[1], 'user', 'role', 'current', 'first_until_ms')
local user, role, current = family[1], family[2], family[3]
if not user then
  return {'unknown'}
end

if current == '' or current ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'current', '')
  return {'reused'}
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- Never forgotten before the first token is: it would open the family again.
local first_left_ms = tonumber(family[4] or '0') - now_ms
redis.call('HSET', KEYS[1], 'current', ARGV[2])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(tonumber(ARGV[3]), first_left_ms)))
return {'rotated', user, role, time[1] * 1000000 + time[2]}
