-- Sets the held units of an item, in all and by buyer, to the sums of the holds, page by page of its buyers: for an
-- item of which a number was wrong, see count.lua. Reads all holds of the event, of which there are few. Runs behind
-- prelude.lua.
--
-- KEYS   1 the holds, 2 the item
-- ARGV   id of the item, cursor ('0' to begin), about how many fields to look at
-- Returns {cursor of the next page ('0' after the last), how many numbers were wrong}. The mark that buyers are to be
-- counted goes with the last page, so that one who stops in between is found to begin again.

local HOLDS, ITEM = KEYS[1], KEYS[2]
local ID, CURSOR, COUNT = ARGV[1], ARGV[2], ARGV[3]

-- Sets a number if it differs. Returns 1 if it did.
local function set_right(field, stored, units)
  if tonumber(stored) == units then
    return 0
  elseif units == 0 and string.sub(field, 1, 2) == 'u:' then
    redis.call('HDEL', ITEM, field)
  else
    redis.call('HSET', ITEM, field, units)
  end
  return 1
end

if redis.call('HEXISTS', ITEM, 'total') == 0 then
  return { '0', 0 }
end
local held = units_on_hold(HOLDS, { ID })[ID]
local page = redis.call('HSCAN', ITEM, CURSOR, 'MATCH', 'u:*', 'COUNT', COUNT)
local wrong = 0
for i = 1, #page[2], 2 do
  local field = page[2][i]
  wrong = wrong + set_right(field, page[2][i + 1], held.users[string.sub(field, 3)] or 0)
end
if page[1] == '0' then
  for user, units in pairs(held.users) do
    wrong = wrong + set_right('u:' .. user, redis.call('HGET', ITEM, 'u:' .. user), units)
  end
  local stored = redis.call('HMGET', ITEM, 'held', 'gift_held')
  wrong = wrong + set_right('held', stored[1], held.units) + set_right('gift_held', stored[2], held.gifts)
  redis.call('HDEL', ITEM, 'uncounted')
end
return { page[1], wrong }
