-- Copies an event's items from the ledger, and drops holds: those that the ledger has answered, or that will never
-- reach it. Everything from the ledger is absolute and carries the version of its stock row, so calls are idempotent
-- and their order does not matter. Runs behind prelude.lua.
--
-- KEYS   1 the holds of the event, 2.. the items concerned
-- ARGV   the id of each item in the order of KEYS; number of orders whose holds are dropped, and for each: order, the
--        held_at_us of the hold that is meant or '' for whatever there is; then for each item that the ledger has
--        changed: which item (1 is KEYS[2]), first version that this copy covers, committed units, committed gifts,
--        version, 1 if these are all of its buyers or 0, number of buyers, and for each: user, units
-- Returns how many holds were dropped. An order that holds nothing is passed over; so is one that holds an item which
-- is not in KEYS, and one whose hold was renewed since.
--
-- An item that is not staged gets no total by this and stays NOT_READY; the copy is kept for an hour, in which it may
-- be staged.

local HOLDS, FIRST_ITEM = KEYS[1], 2
local ITEMS = #KEYS - FIRST_ITEM + 1
-- Where in ARGV the holds to be dropped begin, how many they are, and where the changed items begin.
local FIRST_DROP, DROPS = ITEMS + 2, tonumber(ARGV[ITEMS + 1])
local FIRST_COPY = FIRST_DROP + 2 * DROPS
-- Arguments of a changed item before its buyers.
local ARGS_PER_COPY = 7
local UNSTAGED_SECONDS = 3600

-- The units that the dropped holds give back, by item. An order that is named twice holds only once.
local function gather(orders, meant, index_of)
  local holds, freed, dropped, seen = values_of(HOLDS, orders), {}, {}, {}
  for i, order in ipairs(orders) do
    local hold = not seen[order] and holds[i] or ''
    seen[order] = true
    local held_at, user, list = string.match(hold, '^%d+|(%d+)|%x+|([^|]+)|%u+|(.+)$')
    local lines, complete = {}, user ~= nil and (meant[i] == '' or meant[i] == held_at)
    for id, units, gifts in string.gmatch(list or '', '([^:,]+):(%d+):(%d+):%d+') do
      complete = complete and index_of[id] ~= nil
      lines[#lines + 1] = { item = index_of[id], units = tonumber(units), gifts = tonumber(gifts) }
    end
    if complete then
      dropped[#dropped + 1] = order
      for _, line in ipairs(lines) do
        local item = freed[line.item] or { units = 0, gifts = 0, users = {} }
        item.units, item.gifts = item.units + line.units, item.gifts + line.gifts
        item.users[user] = (item.users[user] or 0) + line.units
        freed[line.item] = item
      end
    end
  end
  return freed, dropped
end

-- Releases held units of one item. Nothing falls below zero, even if a key was lost in between.
local function give_back(key, item)
  local fields, users = { 'held', 'gift_held' }, {}
  for user in pairs(item.users) do
    users[#users + 1] = user
    fields[#fields + 1] = 'u:' .. user
  end
  local values, set, gone = values_of(key, fields), {}, {}
  if not values[1] then
    return
  end
  set[1], set[2] = 'held', math.max(tonumber(values[1]) - item.units, 0)
  set[3], set[4] = 'gift_held', math.max(tonumber(values[2]) - item.gifts, 0)
  for i, user in ipairs(users) do
    local held = (tonumber(values[i + 2]) or 0) - item.users[user]
    if held > 0 then
      set[#set + 1] = 'u:' .. user
      set[#set + 1] = held
    else
      gone[#gone + 1] = 'u:' .. user
    end
  end
  on_hash('HSET', key, set)
  on_hash('HDEL', key, gone)
end

-- Sets the committed units of so many buyers, from this place in ARGV on; the newest version wins for each. Returns
-- where it ended.
local function set_buyers(key, version, at, count)
  local fields, units = {}, {}
  for i = 1, count do
    fields[i], units[i] = 'c:' .. ARGV[at], ARGV[at + 1]
    at = at + 2
  end
  local known, set = values_of(key, fields), {}
  for i, field in ipairs(fields) do
    local known_version = known[i] and tonumber(string.match(known[i], ':(%d+)$')) or -1
    if version >= known_version then
      set[#set + 1] = field
      set[#set + 1] = string.format('%s:%.0f', units[i], version)
    end
  end
  on_hash('HSET', key, set)
  return at
end

-- Copies the changed item that begins at this place in ARGV from the ledger. Returns where it ended.
local function copy_item(at)
  local index, first, committed, gift_committed, version, all_buyers, buyers = unpack(ARGV, at, at + ARGS_PER_COPY - 1)
  local key = KEYS[FIRST_ITEM + tonumber(index) - 1]
  version = tonumber(version)
  -- All of its buyers are as of every version up to this one.
  copy_ledger(key, committed, gift_committed, all_buyers == '1' and 0 or tonumber(first), version)
  at = set_buyers(key, version, at + ARGS_PER_COPY, tonumber(buyers))
  if redis.call('HEXISTS', key, 'total') == 0 then
    redis.call('EXPIRE', key, UNSTAGED_SECONDS)
  end
  return at
end

local index_of, orders, meant = {}, {}, {}
for index = 1, ITEMS do
  index_of[ARGV[index]] = index
end
for i = 1, DROPS do
  local at = FIRST_DROP + 2 * (i - 1)
  orders[i], meant[i] = ARGV[at], ARGV[at + 1]
end
local at = FIRST_COPY
while at <= #ARGV do
  at = copy_item(at)
end

local freed, dropped = gather(orders, meant, index_of)
for index, item in pairs(freed) do
  give_back(KEYS[FIRST_ITEM + index - 1], item)
end
on_hash('HDEL', HOLDS, dropped)
return #dropped
