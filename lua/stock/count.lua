-- Compares the held units of each item of an event, in all and by buyer, with the holds, and corrects them atomically.
-- Reads the holds alone, of which there are few, and not all buyers of an item: an item of which a number was wrong is
-- marked, and its buyers who have no hold are counted by recount.lua. Runs behind prelude.lua.
--
-- KEYS   1 the holds, 2.. items of the event
-- ARGV   the id of each item in the order of KEYS
-- Returns how many numbers of each item were wrong.

local FIRST_ITEM = 2

local function set_right(key, held)
  local fields, counted = { 'held', 'gift_held' }, { held.units, held.gifts }
  for user, units in pairs(held.users) do
    fields[#fields + 1] = 'u:' .. user
    counted[#counted + 1] = units
  end
  local stored, set = values_of(key, fields), {}
  for i, field in ipairs(fields) do
    if tonumber(stored[i]) ~= counted[i] then
      set[#set + 1] = field
      set[#set + 1] = counted[i]
    end
  end
  on_hash('HSET', key, set)
  if #set > 0 then
    redis.call('HSET', key, 'uncounted', 1)
  end
  return #set / 2
end

local held, wrong = units_on_hold(KEYS[1], ARGV), {}
for i, id in ipairs(ARGV) do
  local key = KEYS[FIRST_ITEM + i - 1]
  local is_staged = redis.call('HEXISTS', key, 'total') == 1
  wrong[i] = is_staged and set_right(key, held[id]) or 0
end
return wrong
