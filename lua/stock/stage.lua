-- Stages the items of an event, or moves its window. An older version than the staged one changes nothing, nor does a
-- repeat, nor an event that was compared on another run of the server, nor one that was ready then and was lost or
-- distrusted since: what the caller found says nothing of what is there now. An event that is not ready is staged with
-- any version: the ledger may have been restored from a backup, or what is there be of an earlier run. Held units and
-- arrivals are never reset. Runs behind run_id.lua and prelude.lua.
--
-- KEYS   1 the event, 2 its holds, 3.. every item of it
-- ARGV   version of the event, opens_us, closes_us, when Redis may forget the event with all of its keys, in
--        milliseconds since the epoch (one for which that is past is gone at once), arrivals to go on from at least,
--        run id of the server on which all that Redis has of the event was compared with the ledger, 1 if it was found
--        to have been compared on that run before or else 0; then for each item: id, total units, limit per buyer,
--        price in minor units, currency, total gifts, and from the ledger: committed units, committed gifts, version of
--        the stock row
-- Returns 1 if it is staged, 0 if a newer version is ready, the run another, or the event lost or distrusted meanwhile.

local EVENT, HOLDS, FIRST_ITEM = KEYS[1], KEYS[2], 3
local VERSION, OPENS_US, CLOSES_US, EXPIRES_MS, ARRIVALS, COMPARED_ON, WAS_COMPARED = unpack(ARGV, 1, 7)
-- Where in ARGV the first item begins, and how many arguments each has.
local FIRST_ARG, ARGS_PER_ITEM = 8, 9

-- Stages the item that begins at this place in ARGV. Returns its id.
local function stage_item(key, at)
  local id, total, limit, price, currency, gift_total, committed, gift_committed, version =
    unpack(ARGV, at, at + ARGS_PER_ITEM - 1)
  version = tonumber(version)
  redis.call('HSET', key, 'total', total, 'limit', limit, 'price', price, 'currency', currency, 'gift_total',
    gift_total)
  -- The copy has no buyers, so it covers no change.
  copy_ledger(key, committed, gift_committed, version + 1, version)
  redis.call('HSETNX', key, 'held', 0)
  redis.call('HSETNX', key, 'gift_held', 0)
  redis.call('PEXPIREAT', key, EXPIRES_MS)
  if redis.call('HGET', key, 'claim_cursor') == 'done' then
    -- All its buyers were copied: a change that it misses from here on makes them stale.
    redis.call('HDEL', key, unpack(CLAIM))
  end
  return id
end

local event = redis.call('HMGET', EVENT, 'version', 'arrivals', 'run_id')
local is_ready = event[3] == RUN_ID
if COMPARED_ON ~= RUN_ID or (WAS_COMPARED == '1' and not is_ready) then
  return 0
elseif is_ready and event[1] and tonumber(VERSION) < tonumber(event[1]) then
  return 0
end
local ids = {}
for index = FIRST_ITEM, #KEYS do
  ids[#ids + 1] = stage_item(KEYS[index], FIRST_ARG + (index - FIRST_ITEM) * ARGS_PER_ITEM)
end
redis.call('HSET', EVENT, 'version', VERSION, 'opens_us', OPENS_US, 'closes_us', CLOSES_US, 'items',
  table.concat(ids, ' '), 'run_id', RUN_ID, 'arrivals', math.max(tonumber(event[2]) or 0, tonumber(ARRIVALS)),
  'expires_ms', EXPIRES_MS)
redis.call('PEXPIREAT', EVENT, EXPIRES_MS)
-- There are none yet, or none at this moment: reserve.lua has the next ones expire by the field.
redis.call('PEXPIREAT', HOLDS, EXPIRES_MS)
return 1
