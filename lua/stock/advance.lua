-- Advances claimed work, see claim.lua. Nothing happens unless the claim is the owner's and the cursor is where the
-- owner left it: else it was lost, rolled back to an earlier copy, or taken by another. Runs behind run_id.lua and
-- prelude.lua.
--
-- KEYS   1 the key of claim.lua
-- ARGV   owner, cursor where the owner left it, cursor where it is now ('done' at the end; '' gives it up wherever it
--        is), term in microseconds from now; the versions of the stock row, first and last, of which the buyers are
--        copied by this, '' and '' before the end and for what is no item
-- Returns 1 if it moved on, or had by the same call before, 0 if the work is not the owner's any more.

local WORK = KEYS[1]
local OWNER, FROM, TO, TERM = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local FIRST, LAST = tonumber(ARGV[5]), tonumber(ARGV[6])

local claim = redis.call('HMGET', WORK, unpack(CLAIM))
if claim[1] ~= OWNER or claim[3] ~= RUN_ID then
  return 0
elseif TO == '' then
  redis.call('HDEL', WORK, 'claim_owner', 'claim_until')
  return 1
elseif claim[4] ~= FROM and claim[4] ~= TO then
  return 0
end
if LAST then
  end_doubt(WORK, FIRST, LAST)
end
if TO == 'done' and redis.call('HEXISTS', WORK, 'total') == 1 then
  -- Changes that a staged item misses later make its buyers stale, and they are copied again from the first one on.
  redis.call('HDEL', WORK, unpack(CLAIM))
  return 1
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('HSET', WORK, 'claim_until', string.format('%.0f', now + TERM), 'claim_cursor', TO)
return 1
