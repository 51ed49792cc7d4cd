-- Reads an event and some of its items as they are at one instant. Runs behind run_id.lua.
--
-- KEYS   1 the event, 2 its holds, 3.. items
-- Returns {now_us, the run id of this server, event, number of holds, items}
--        event: nil if it is not staged, else {version, opens_us, closes_us, arrivals, expires_ms or -1 if an earlier
--        release has staged it, 1 if it was compared with the ledger since this server began to run or else 0}
--        items: one for each key, nil if it is not staged, else {total, committed, held, gift_total, gift_committed,
--        gift_held, ledger_version, stale_from or -1, stale_at or -1, 1 if its buyers are to be counted by recount.lua
--        or else -1}

local function numbers(key, fields)
  local values = redis.call('HMGET', key, unpack(fields))
  if not values[1] then
    return false
  end
  for i = 1, #fields do
    values[i] = tonumber(values[i]) or -1
  end
  return values
end

local event = numbers(KEYS[1], { 'version', 'opens_us', 'closes_us', 'arrivals', 'expires_ms' })
if event then
  event[6] = redis.call('HGET', KEYS[1], 'run_id') == RUN_ID and 1 or 0
end
local items = {}
for index = 3, #KEYS do
  items[index - 2] = numbers(KEYS[index], { 'total', 'committed', 'held', 'gift_total', 'gift_committed', 'gift_held',
    'ledger_version', 'stale_from', 'stale_at', 'uncounted' })
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
return { now, RUN_ID, event, redis.call('HLEN', KEYS[2]), items }
