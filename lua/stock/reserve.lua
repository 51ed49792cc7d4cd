-- Decides up to 256 reservations of one event in the order given, each all or nothing. In this order: a hold that is
-- there already is given again; the window of the event by the clock of Redis; for each line whether the item is
-- offered and staged, the currency, the limit per buyer, the units left. A gift comes with a line while there are
-- gifts, and is no reason to refuse.
--
-- KEYS   1 the event, 2 its holds, 3.. the items that the reservations name
-- ARGV   the id of each item in the order of KEYS; then for each reservation:
--        order, user, number of lines, and for each line: which item (1 is KEYS[3]), units
-- Returns for each reservation one of
--        {'HELD', hold}  as it is stored: arrival|held_at_us|user|currency|item:units:gifts:price,...
--        {reason, item at fault or '', units that are left or that the limit allows}
--        where the reason is EVENT_NOT_OPEN, EVENT_CLOSED, NOT_READY, ITEM_NOT_FOUND, CURRENCY_MISMATCH,
--        LIMIT_REACHED or SOLD_OUT
--
-- What is left is total - committed - held, never stored. A key that is not there is NOT_READY, never zero.

local EVENT, HOLDS, FIRST_ITEM = KEYS[1], KEYS[2], 3
local ITEMS = #KEYS - FIRST_ITEM + 1

local function parse()
  local asks, at = {}, ITEMS + 1
  while at <= #ARGV do
    local ask = { order = ARGV[at], user = ARGV[at + 1] }
    local lines = tonumber(ARGV[at + 2])
    at = at + 3
    for i = 1, lines do
      ask[i] = { item = tonumber(ARGV[at]), units = tonumber(ARGV[at + 1]) }
      at = at + 2
    end
    asks[#asks + 1] = ask
  end
  return asks
end

local function known_holds(asks)
  local orders = {}
  for i, ask in ipairs(asks) do
    orders[i] = ask.order
  end
  local found, holds = redis.call('HMGET', HOLDS, unpack(orders)), {}
  for i, order in ipairs(orders) do
    holds[order] = found[i] or nil
  end
  return holds
end

-- Why nobody gets anything now; nil inside the window.
local function closed_because(opens, closes, now)
  if not opens then
    return 'NOT_READY'
  elseif now >= tonumber(closes) then
    return 'EVENT_CLOSED'
  elseif now < tonumber(opens) then
    return 'EVENT_NOT_OPEN'
  end
end

local FIELDS = { 'total', 'limit', 'price', 'currency', 'gift_total', 'committed', 'gift_committed', 'held',
  'gift_held' }

-- One item with what its buyers in this batch hold and have: one HMGET.
local function load_item(index, buyers)
  local fields = {}
  for i, name in ipairs(FIELDS) do
    fields[i] = name
  end
  for _, user in ipairs(buyers) do
    fields[#fields + 1] = 'u:' .. user
    fields[#fields + 1] = 'c:' .. user
  end
  local values = redis.call('HMGET', KEYS[FIRST_ITEM + index - 1], unpack(fields))
  local item = { id = ARGV[index], holds = {}, has = {}, changed = {} }
  for i, name in ipairs(FIELDS) do
    item[name] = name == 'currency' and values[i] or tonumber(values[i])
  end
  for i, user in ipairs(buyers) do
    local at = #FIELDS + 2 * i - 1
    item.holds[user] = tonumber(values[at]) or 0
    item.has[user] = values[at + 1] and tonumber(string.match(values[at + 1], '^%d+')) or 0
  end
  return item
end

local function load_items(asks)
  local buyers, seen = {}, {}
  for index = 1, ITEMS do
    buyers[index], seen[index] = {}, {}
  end
  for _, ask in ipairs(asks) do
    for _, line in ipairs(ask) do
      if not seen[line.item][ask.user] then
        seen[line.item][ask.user] = true
        table.insert(buyers[line.item], ask.user)
      end
    end
  end
  local items = {}
  for index = 1, ITEMS do
    items[index] = load_item(index, buyers[index])
  end
  return items
end

-- Why this line can't be held; nil if it can.
local function refuse(item, offered, currency, user, units)
  if not string.find(offered, item.id, 1, true) then
    return { 'ITEM_NOT_FOUND', item.id, 0 }
  elseif not item.total then
    return { 'NOT_READY', item.id, 0 }
  elseif currency and item.currency ~= currency then
    return { 'CURRENCY_MISMATCH', item.id, 0 }
  end
  local allowed = item.limit - item.has[user] - item.holds[user]
  if units > allowed then
    return { 'LIMIT_REACHED', item.id, math.max(allowed, 0) }
  end
  local left = item.total - item.committed - item.held
  if units > left then
    return { 'SOLD_OUT', item.id, math.max(left, 0) }
  end
end

local function refuse_any(ask, items, offered)
  local currency
  for _, line in ipairs(ask) do
    local item = items[line.item]
    local refusal = refuse(item, offered, currency, ask.user, line.units)
    if refusal then
      return refusal
    end
    currency = item.currency
  end
end

-- Takes the units in the loaded items and packs the hold.
local function take(ask, items, arrival, now)
  local lines = {}
  for i, line in ipairs(ask) do
    local item = items[line.item]
    local gifts = item.gift_total - item.gift_committed - item.gift_held > 0 and 1 or 0
    item.held = item.held + line.units
    item.gift_held = item.gift_held + gifts
    item.holds[ask.user] = item.holds[ask.user] + line.units
    item.changed[ask.user] = true
    lines[i] = string.format('%s:%d:%d:%.0f', item.id, line.units, gifts, item.price)
  end
  return string.format('%.0f|%.0f|%s|%s|%s', arrival, now, ask.user, items[ask[1].item].currency,
    table.concat(lines, ','))
end

local function write_items(items)
  for index, item in ipairs(items) do
    local fields = {}
    for user in pairs(item.changed) do
      fields[#fields + 1] = 'u:' .. user
      fields[#fields + 1] = item.holds[user]
    end
    if #fields > 0 then
      redis.call('HSET', KEYS[FIRST_ITEM + index - 1], 'held', item.held, 'gift_held', item.gift_held, unpack(fields))
    end
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local event = redis.call('HMGET', EVENT, 'opens_us', 'closes_us', 'items', 'arrivals')
local offered, arrivals = event[3], tonumber(event[4])
local asks = parse()
local holds = known_holds(asks)
local shut = closed_because(event[1], event[2], now)
local items = shut and {} or load_items(asks)

local replies, fresh = {}, {}
for i, ask in ipairs(asks) do
  local hold = holds[ask.order]
  local refusal = not hold and (shut and { shut, '', 0 } or refuse_any(ask, items, offered))
  if not hold and not refusal then
    arrivals = arrivals + 1
    hold = take(ask, items, arrivals, now)
    holds[ask.order] = hold
    fresh[#fresh + 1] = ask.order
    fresh[#fresh + 1] = hold
  end
  replies[i] = refusal or { 'HELD', hold }
end

if #fresh > 0 then
  write_items(items)
  redis.call('HSET', HOLDS, unpack(fresh))
  redis.call('HSET', EVENT, 'arrivals', arrivals)
end
return replies
