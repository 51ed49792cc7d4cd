-- Exchanges the valid refresh token of a family for the next one, or shuts the family.
--
-- Decides: a token that is not the valid one was used before, so either the buyer or a thief has a copy. It is not
-- known which, so the family is shut: its `current` is emptied, which is the hash of no token. The key stays until its
-- time is up, so that later tries get the same answer.
--
-- The next token follows from the one presented. So if it is the valid one already, this call or an earlier one like it
-- ran before, and its answer was lost on the way: for a while it gets that answer again, and nothing changes.
--
-- KEYS[1]  the family, a hash: user, role, current (SHA-256 of the valid token in hex, empty once it is shut, '-' once
--          its owner has ended it), rotated_us (when that became the valid one, in microseconds since the epoch),
--          first_until_ms (end of the first token's time, in milliseconds since the epoch)
-- ARGV[1]  SHA-256 of the token presented, in hex
-- ARGV[2]  life of the next token in milliseconds
-- ARGV[3]  how long the answer can be had again, in milliseconds
-- ARGV[4]  and on: SHA-256 of the next token in hex, by each key that it may be made with; the first is for a new one
-- Returns  {'rotated', user, role, rotated_us, which of the next ones, from 1} | {'reused'} | {'ended'} |
--          {'unknown'} (never opened, or its time is up)

local FAMILY = KEYS[1]
local PRESENTED, LIFE_MS, REPEAT_MS = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
-- Where in ARGV the hashes of the next token begin.
local FIRST_NEXT = 4

local family = redis.call('HMGET', FAMILY, 'user', 'role', 'current', 'rotated_us', 'first_until_ms')
local user, role, current, rotated_us = family[1], family[2], family[3], family[4]
if current == '-' then
  return {'ended'}
end
if not user then
  return {'unknown'}
end

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
for i = FIRST_NEXT, #ARGV do
  if current == ARGV[i] and now_us - tonumber(rotated_us) <= REPEAT_MS * 1000 then
    return {'rotated', user, role, rotated_us, tostring(i - FIRST_NEXT + 1)}
  end
end

if current == '' or current ~= PRESENTED then
  redis.call('HSET', FAMILY, 'current', '')
  return {'reused'}
end

-- Never forgotten before the first token is: it would open the family again.
local first_left_ms = tonumber(family[5] or '0') - math.floor(now_us / 1000)
-- As text, which is what a repeat reads: %.0f is exact to 2^53.
local now = string.format('%.0f', now_us)
redis.call('HSET', FAMILY, 'current', ARGV[FIRST_NEXT], 'rotated_us', now)
redis.call('PEXPIRE', FAMILY, string.format('%.0f', math.max(LIFE_MS, first_left_ms)))
return {'rotated', user, role, now, '1'}
