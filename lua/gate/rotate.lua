-- Exchanges the valid refresh token of a family for the next one, or shuts the family.
--
-- Decides: a token that is not the valid one was used before, so either the buyer or a thief is holding a copy. Nobody
-- can tell which, so the family is shut: its `current` is emptied, which is the hash of no token. The key stays until
-- its time is up, so that later tries are told the same.
--
-- The next token is drawn at random for each call. So if it is the valid one already, this very call ran before and its
-- answer was lost on the way: it gets that answer again, and nothing changes.
--
-- KEYS[1]  the family, a hash: user, role, current (SHA-256 of the valid token in hex, empty once it is shut),
--          rotated_us (when that became the valid one, in microseconds since the epoch), first_until_ms (end of the
--          first token's time, in milliseconds since the epoch)
-- ARGV[1]  SHA-256 of the token presented, in hex
-- ARGV[2]  SHA-256 of the next token, in hex; names the call
-- ARGV[3]  life of the next token in milliseconds
-- Returns  {'rotated', user, role, rotated_us} | {'reused'} | {'unknown'} (never opened, or its time is up)

local family = redis.call('HMGET', KEYS[1], 'user', 'role', 'current', 'rotated_us', 'first_until_ms')
local user, role, current, rotated_us = family[1], family[2], family[3], family[4]
if not user then
  return {'unknown'}
end

if current == ARGV[2] then
  return {'rotated', user, role, rotated_us}
end

if current == '' or current ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'current', '')
  return {'reused'}
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- Never forgotten before the first token is: it would open the family again.
local first_left_ms = tonumber(family[5] or '0') - now_ms
-- As text, which is what a repeat reads: %.0f is exact to 2^53.
local now_us = string.format('%.0f', time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], 'current', ARGV[2], 'rotated_us', now_us)
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(tonumber(ARGV[3]), first_left_ms)))
return {'rotated', user, role, now_us}
