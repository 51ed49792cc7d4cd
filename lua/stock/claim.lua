-- Claims a piece of paged work, for one worker at a time. The claim and the cursor lie in the hash that the work is
-- about, so both are lost with its result. A claim expires unless it is advanced, and the next worker goes on at the
-- cursor. On another run of the server the work begins anew. Runs behind run_id.lua and prelude.lua.
--
-- KEYS   1 an item, or the mark of the pass over all events
-- ARGV   owner, term of the claim in microseconds, cursor to begin with, 1 if the hash must be that of a staged item,
--        0 if it must not, '' if either is fine; the version of the stock row up to which changes of a staged item are
--        to be copied, '' if it is to be copied whatever it has
-- Returns {'TAKEN', cursor}: the work is the owner's, to go on from the cursor;
--        {'BUSY', ''}: it is another's;
--        {'DONE', ''}: all of it was done;
--        {'CHANGED', ''}: the item was staged or lost meanwhile.
--
-- An item that is not staged is gone in an hour, as by sync.lua.

local WORK = KEYS[1]
local OWNER, TERM, BEGIN, IS_STAGED = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local LAST = tonumber(ARGV[5])

-- Whether the item has all changes up to LAST: another worker has copied them since the claimant compared it.
local function has_all_changes()
  local item = redis.call('HMGET', WORK, 'ledger_version', 'stale_from')
  local version, stale_from = tonumber(item[1]) or -1, tonumber(item[2])
  return version >= LAST and not (stale_from and stale_from <= LAST)
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if IS_STAGED ~= '' and tostring(redis.call('HEXISTS', WORK, 'total')) ~= IS_STAGED then
  return { 'CHANGED', '' }
end
local claim = redis.call('HMGET', WORK, unpack(CLAIM))
local owner, ends, cursor = claim[1], tonumber(claim[2]), claim[4]
if claim[3] ~= RUN_ID then
  owner, cursor = false, false
end
if cursor == 'done' then
  return { 'DONE', '' }
elseif owner and owner ~= OWNER and ends > now then
  return { 'BUSY', '' }
elseif IS_STAGED == '1' and LAST and has_all_changes() then
  return { 'DONE', '' }
end
cursor = cursor or BEGIN
redis.call('HSET', WORK, 'claim_owner', OWNER, 'claim_until', string.format('%.0f', now + TERM), 'claim_run', RUN_ID,
  'claim_cursor', cursor)
if IS_STAGED == '0' then
  redis.call('EXPIRE', WORK, 3600)
end
return { 'TAKEN', cursor }
