-- Loads one page of stored coupons into a campaign that is being staged, and opens it after the last. Runs behind
-- run_id.lua.
--
-- Decides: next never goes down, and only grows to the greatest rank loaded; a page of another epoch, or of before this
-- server began to run, is refused.
-- Loading a page again changes nothing.
--
-- KEYS[1]  campaign hash: quota, next (ranks given so far), opens_us, closes_us, epoch, ready, run_id (of the server on
--          which it was staged), u:<user> = rank
-- ARGV[1]  epoch that stage.lua gave
-- ARGV[2]  1 if this is the last page, else 0
-- ARGV[3..] user, rank for each coupon; at most 1000 coupons, none on an empty page
--
-- Returns 'loaded', 'ready' after the last page, or 'superseded' if the campaign is gone or of another epoch or run.

local campaign = KEYS[1]
local epoch, is_last, FIRST_COUPON = tonumber(ARGV[1]), ARGV[2] == '1', 3

local found = redis.call('HMGET', campaign, 'epoch', 'next', 'run_id')
if tonumber(found[1] or 0) ~= epoch or found[3] ~= RUN_ID then
  return 'superseded'
end

-- From what is there, not from 0: pages may be loaded twice, or by two processes under one epoch.
local next_rank = tonumber(found[2])
local fields = {}
for i = FIRST_COUPON, #ARGV, 2 do
  local user, rank = ARGV[i], ARGV[i + 1]
  fields[#fields + 1] = 'u:' .. user
  fields[#fields + 1] = rank
  next_rank = math.max(next_rank, tonumber(rank))
end
redis.call('HSET', campaign, 'next', next_rank, unpack(fields))
if not is_last then
  return 'loaded'
end
-- Last, and in the same script as the last page: no claim is ranked before every stored rank is known.
redis.call('HSET', campaign, 'ready', 1)
return 'ready'
