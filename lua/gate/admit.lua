-- Lets an act through, or says when to come again.
--
-- Decides by a bucket that has room for some acts at once and gets room for one more each interval. What is kept of it
-- is when it will be empty again. So nothing is kept of a caller who does little, and nothing of anybody for longer
-- than it matters. A caller who is refused pays nothing for it.
--
-- Where the caller's open orders are bounded too, an order that is among them is let through: it is a repeat.
--
-- A call that runs twice counts twice, which only makes the bucket a little smaller.
--
-- KEYS[1]  the bucket, a string: when it is empty, in microseconds since the epoch
-- KEYS[2]  the open orders, a sorted set by when each stops to count, in milliseconds since the epoch (see placed.lua);
--          only where they are bounded
-- ARGV[1]  interval in microseconds
-- ARGV[2]  acts at once
-- ARGV[3]  most open orders
-- ARGV[4]  id of the order
-- Returns  {'admitted', 0} | {'throttled', wait_us} | {'open', wait_us until the next order stops to count}

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]

if KEYS[2] and not redis.call('ZSCORE', KEYS[2], ARGV[4]) then
  local now_ms = string.format('%.0f', math.floor(now_us / 1000))
  if redis.call('ZCOUNT', KEYS[2], now_ms, '+inf') >= tonumber(ARGV[3]) then
    local next_one = redis.call('ZRANGE', KEYS[2], now_ms, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    return {'open', math.max(0, next_one[2] * 1000 - now_us)}
  end
end

local interval_us = tonumber(ARGV[1])
local empty_us = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now_us)
local wait_us = empty_us - now_us - (tonumber(ARGV[2]) - 1) * interval_us
if wait_us > 0 then
  return {'throttled', wait_us}
end

empty_us = empty_us + interval_us
local life_ms = math.ceil((empty_us - now_us) / 1000)
redis.call('SET', KEYS[1], string.format('%.0f', empty_us), 'PX', string.format('%.0f', life_ms))
return {'admitted', 0}
