-- Answers questions about rate limits, one after the other: admits acts or returns when to retry, and stores which
-- orders are open. Each question sees the changes of those before it.
--
-- An act is decided by buckets, the narrowest first. A bucket has room for some acts at once and gets room for one more
-- each interval. Its only state is the time when it will be empty again; then its key expires. An act that one bucket
-- refuses takes nothing from it, nor from those behind it.
--
-- Where the open orders of a bucket's owner are bounded too, an order that is among them is let through: it is a
-- repeat. Once placed, an order counts as open until it is settled (it is being paid, or has ended) or its time is up.
-- A settled order stays in the set for a while and does not count: the answer to a repeat may be recorded late, and
-- must not open it again.
--
-- A call that runs twice counts acts twice, which only makes a bucket a little smaller.
--
-- KEYS and ARGV have the parts of each question, one question behind the other:
--   ARGV  'act', number of buckets, then for each: interval in microseconds, acts at once, most open orders ('' where
--         they are not bounded) and, where they are, id of the order
--   KEYS  for each bucket: the bucket, a string: when it is empty, in microseconds since the epoch; then, where they
--         are bounded, the open orders, a sorted set by when each stops to count, in milliseconds since the epoch; a
--         settled one by when it is forgotten, with a minus
--
--   ARGV  'placed', id of the order, how long it counts in milliseconds, number of sets
--   KEYS  the open orders of so many owners. Again for the same order, or for a settled one, changes nothing.
--
--   ARGV  'settled', id of the order, how long it is remembered in milliseconds, number of sets
--   KEYS  the open orders of so many owners
--
-- Returns {questions, refusal...}, a refusal for each act that is not let through:
--   {question, bucket, 'throttled', wait_us}   both numbered from 1
--   {question, bucket, 'open', wait_us}        until the next order stops to count

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

local keys_read, args_read = 0, 0

local function next_key()
  keys_read = keys_read + 1
  return KEYS[keys_read]
end

local function next_arg()
  args_read = args_read + 1
  return ARGV[args_read]
end

-- Returns how long to wait until an order more may be open; nil if one may, or if this one is open already.
local function wait_for_order(open, most, order)
  if redis.call('ZCOUNT', open, now_ms, '+inf') < most or redis.call('ZSCORE', open, order) then
    return nil
  end
  local next_one = redis.call('ZRANGE', open, now_ms, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  return math.max(0, next_one[2] * 1000 - now_us)
end

-- Takes room for one act. Returns the wait if there is none.
local function take(bucket, interval_us, burst)
  local empty_us = math.max(tonumber(redis.call('GET', bucket) or '0'), now_us)
  local wait_us = empty_us - now_us - (burst - 1) * interval_us
  if wait_us > 0 then
    return wait_us
  end
  empty_us = empty_us + interval_us
  -- `tostring` would round a number of 16 digits.
  redis.call('SET', bucket, string.format('%.0f', empty_us), 'PX', math.ceil((empty_us - now_us) / 1000))
  return nil
end

local reply = {0}

local function decide_act()
  local refused = false
  for place = 1, tonumber(next_arg()) do
    local bucket = next_key()
    local interval_us = tonumber(next_arg())
    local burst = tonumber(next_arg())
    local most = next_arg()
    local open, order
    if most ~= '' then
      open = next_key()
      order = next_arg()
    end
    -- The arguments behind a refusal are read too: the next question begins after them.
    if not refused then
      local word, wait_us = 'open', open and wait_for_order(open, tonumber(most), order)
      if not wait_us then
        word, wait_us = 'throttled', take(bucket, interval_us, burst)
      end
      if wait_us then
        refused = true
        reply[#reply + 1] = {reply[1], place, word, wait_us}
      end
    end
  end
end

-- Drops the orders that count no longer, and those that were settled long enough ago.
local function forget_old(open)
  redis.call('ZREMRANGEBYSCORE', open, 1 - now_ms, now_ms - 1)
end

-- Has the set go with the last order that counts or is remembered.
local function keep(open)
  local first = redis.call('ZRANGE', open, 0, 0, 'WITHSCORES')
  local last = redis.call('ZRANGE', open, -1, -1, 'WITHSCORES')
  redis.call('PEXPIRE', open, math.max(-tonumber(first[2]), tonumber(last[2])) - now_ms)
end

local function write_placed()
  local order = next_arg()
  local life_ms = tonumber(next_arg())
  for _ = 1, tonumber(next_arg()) do
    local open = next_key()
    forget_old(open)
    if redis.call('ZADD', open, 'NX', now_ms + life_ms, order) == 1 then
      keep(open)
    end
  end
end

local function write_settled()
  local order = next_arg()
  local life_ms = tonumber(next_arg())
  for _ = 1, tonumber(next_arg()) do
    local open = next_key()
    forget_old(open)
    redis.call('ZADD', open, -now_ms - life_ms, order)
    keep(open)
  end
end

local read = {act = decide_act, placed = write_placed, settled = write_settled}
while args_read < #ARGV do
  reply[1] = reply[1] + 1
  read[next_arg()]()
end
return reply
