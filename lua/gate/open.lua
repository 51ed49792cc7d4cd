-- Exchanges the first refresh token of a family for the second one. The caller has verified the signature of the first
-- one; this script decides whether it was used.
--
-- Decides: a family that exists was opened by this token before, so somebody has a copy, and the family is shut (see
-- rotate.lua). The key stays at least until the first token expires, so that it cannot open the family twice.
--
-- The next token follows from the one presented. So if it is the valid one already, this call or an earlier one like it
-- ran before, and its answer was lost on the way: for a while it gets that answer again, and nothing changes.
--
-- Only the SHA-256 of a token is kept, so whoever reads Redis cannot refresh with what is there.
--
-- KEYS[1]  the family, a hash: user, role, current (SHA-256 of the valid token in hex, empty once it is shut, '-' once
--          its owner has ended it), rotated_us (when that became the valid one, in microseconds since the epoch),
--          first_until_ms (end of the first token's time, in milliseconds since the epoch)
-- ARGV[1]  user id
-- ARGV[2]  role
-- ARGV[3]  life of the next token in milliseconds
-- ARGV[4]  end of the first token's time, in milliseconds since the epoch
-- ARGV[5]  how long the answer can be had again, in milliseconds
-- ARGV[6]  and on: SHA-256 of the next token in hex, by each key that it may be made with; the first is for a new one
-- Returns  {'rotated', user, role, rotated_us, which of the next ones, from 1} | {'reused'} | {'ended'} |
--          {'unknown'} (its time is up)

local FAMILY = KEYS[1]
local USER, ROLE, LIFE_MS, FIRST_UNTIL_MS, REPEAT_MS = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
-- Where in ARGV the hashes of the next token begin.
local FIRST_NEXT = 6

local family = redis.call('HMGET', FAMILY, 'current', 'rotated_us')
local current, rotated_us = family[1], family[2]
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]

-- Before the time of the token is looked at: it may have ended since the call ran first.
for i = FIRST_NEXT, #ARGV do
  if current == ARGV[i] and now_us - tonumber(rotated_us) <= REPEAT_MS * 1000 then
    return {'rotated', USER, ROLE, rotated_us, tostring(i - FIRST_NEXT + 1)}
  end
end

local first_left_ms = tonumber(FIRST_UNTIL_MS) - math.floor(now_us / 1000)
if first_left_ms <= 0 then
  return {'unknown'}
end

if current == '-' then
  return {'ended'}
end
if current then
  redis.call('HSET', FAMILY, 'current', '')
  return {'reused'}
end

-- As text, which is what a repeat reads: %.0f is exact to 2^53.
local now = string.format('%.0f', now_us)
redis.call('HSET', FAMILY, 'user', USER, 'role', ROLE, 'current', ARGV[FIRST_NEXT], 'rotated_us', now,
  'first_until_ms', FIRST_UNTIL_MS)
redis.call('PEXPIRE', FAMILY, string.format('%.0f', math.max(LIFE_MS, first_left_ms)))
return {'rotated', USER, ROLE, now, '1'}
