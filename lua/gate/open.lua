-- Exchanges the first refresh token of a family for the second one. That it is the first one and what it says was
-- checked by its signature; that it was not used is decided here.
--
-- Decides: a family that exists was opened by this token before, so somebody has a copy, and the family is shut (see
-- rotate.lua). The key stays at least until the first token's time is up, so that it cannot open the family twice.
--
-- The next token is drawn at random for each call. So if it is the valid one already, this very call ran before and its
-- answer was lost on the way: it gets that answer again, and nothing changes.
--
-- Only the SHA-256 of a token is kept, so whoever reads Redis cannot refresh with what is there.
--
-- KEYS[1]  the family, a hash: user, role, current (SHA-256 of the valid token in hex, empty once it is shut),
--          rotated_us (when that became the valid one, in microseconds since the epoch), first_until_ms (end of the
--          first token's time, in milliseconds since the epoch)
-- ARGV[1]  user id
-- ARGV[2]  role
-- ARGV[3]  SHA-256 of the next token, in hex; names the call
-- ARGV[4]  life of the next token in milliseconds
-- ARGV[5]  end of the first token's time, in milliseconds since the epoch
-- Returns  {'rotated', user, role, rotated_us} | {'reused'} | {'unknown'} (its time is up)

local family = redis.call('HMGET', KEYS[1], 'current', 'rotated_us')
local current, rotated_us = family[1], family[2]
-- Before the time is looked at: it may have ended since the call ran first.
if current == ARGV[3] then
  return {'rotated', ARGV[1], ARGV[2], rotated_us}
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local first_left_ms = tonumber(ARGV[5]) - now_ms
if first_left_ms <= 0 then
  return {'unknown'}
end

if current then
  redis.call('HSET', KEYS[1], 'current', '')
  return {'reused'}
end

-- As text, which is what a repeat reads: %.0f is exact to 2^53.
local now_us = string.format('%.0f', time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], 'user', ARGV[1], 'role', ARGV[2], 'current', ARGV[3], 'rotated_us', now_us,
  'first_until_ms', ARGV[5])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(tonumber(ARGV[4]), first_left_ms)))
return {'rotated', ARGV[1], ARGV[2], now_us}
