-- Stages the items of an event, or moves its window. An older version than the staged one changes nothing, nor does a
-- repeat, nor an event that was compared on another run of the server. Held units and arrivals are never reset. Runs
-- behind run_id.lua and prelude.lua.
--
-- KEYS   1 the event, 2.. every item of it
-- ARGV   version of the event, opens_us, closes_us, when the items' keys may go (ms), arrivals to go on from at least,
--        run id of the server on which all that Redis has of the event was compared with the ledger; then for each
--        item: id, total, limit, price, currency, gift_total, and from the ledger: committed units, committed gifts,
--        version of the stock row
-- Returns 1 if it is staged, 0 if the version was older or the run another.

local EVENT, FIRST_ITEM = KEYS[1], 2
local VERSION, OPENS, CLOSES, ITEMS_EXPIRE_MS, ARRIVALS, COMPARED_ON = 1, 2, 3, 4, 5, 6
local PER_ITEM = 9

local function stage_item(key, at)
  redis.call('HSET', key, 'total', ARGV[at + 1], 'limit', ARGV[at + 2], 'price', ARGV[at + 3], 'currency',
    ARGV[at + 4], 'gift_total', ARGV[at + 5])
  local version = tonumber(ARGV[at + 8])
  -- The copy has no buyers, so it covers no change.
  copy_ledger(key, ARGV[at + 6], ARGV[at + 7], version + 1, version)
  redis.call('HSETNX', key, 'held', 0)
  redis.call('HSETNX', key, 'gift_held', 0)
  redis.call('PEXPIREAT', key, ARGV[ITEMS_EXPIRE_MS])
  if redis.call('HGET', key, 'claim_cursor') == 'done' then
    -- All its buyers were copied: a change that it misses from here on makes them stale.
    redis.call('HDEL', key, unpack(CLAIM))
  end
end

local event = redis.call('HMGET', EVENT, 'version', 'arrivals')
if ARGV[COMPARED_ON] ~= RUN_ID or (event[1] and tonumber(ARGV[VERSION]) < tonumber(event[1])) then
  return 0
end
local ids = {}
for index = FIRST_ITEM, #KEYS do
  local at = COMPARED_ON + 1 + (index - FIRST_ITEM) * PER_ITEM
  ids[#ids + 1] = ARGV[at]
  stage_item(KEYS[index], at)
end
redis.call('HSET', EVENT, 'version', ARGV[VERSION], 'opens_us', ARGV[OPENS], 'closes_us', ARGV[CLOSES], 'items',
  table.concat(ids, ' '), 'run_id', RUN_ID, 'arrivals', math.max(tonumber(event[2]) or 0, tonumber(ARGV[ARRIVALS])))
return 1
