-- Stores that the access tokens of a login are refused from now on, for every gateway to read (see revoked.lua).
--
-- An entry is the name of the login and the end of its tokens. It is removed some time after that end: by then the
-- tokens have expired by themselves. The list is bounded: if it is full, nothing is written and 0 is returned.
--
-- KEYS[1]  the entries by their ends, a sorted set in milliseconds since the epoch
-- KEYS[2]  the same entries by when they were written, a sorted set in microseconds since the epoch
-- ARGV[1]  the entry
-- ARGV[2]  its end, in milliseconds since the epoch
-- ARGV[3]  most entries
-- Returns  1, or 0 if there are too many

local BY_END, BY_WRITTEN = KEYS[1], KEYS[2]
local ENTRY, END_MS, MOST = ARGV[1], ARGV[2], tonumber(ARGV[3])

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local over = redis.call('ZRANGE', BY_END, '-inf', string.format('%.0f', now_us / 1000), 'BYSCORE', 'LIMIT', 0, 100)
if #over > 0 then
  redis.call('ZREM', BY_END, unpack(over))
  redis.call('ZREM', BY_WRITTEN, unpack(over))
end

if redis.call('ZSCORE', BY_END, ENTRY) then
  return 1
end
if redis.call('ZCARD', BY_END) >= MOST then
  return 0
end
redis.call('ZADD', BY_END, END_MS, ENTRY)
redis.call('ZADD', BY_WRITTEN, string.format('%.0f', now_us), ENTRY)
return 1
