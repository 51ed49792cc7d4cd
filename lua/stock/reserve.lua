-- Decides up to 256 reservations of one event in the order given, each all or nothing. It checks in this order: a hold
-- of the order, which is renewed and returned to the request that it was granted to, and refused to any other; whether
-- the buyer has or had units of an item, which is KNOWN_BUYER with a reading of the buyer, unless the ledger was asked
-- for the order after that same reading; the window of the event by the clock of Redis; for each line whether the item
-- is offered and staged, the currency, the limit per buyer, the units left. A gift comes with a line while there are
-- gifts, and is no reason to refuse.
--
-- KEYS   1 the event, 2 its holds, 3.. the items that the reservations name
-- ARGV   the id of each item in the order of KEYS; then for each reservation:
--        order, user, fingerprint of the request (hexadecimal), what is known of the order in the ledger: 0 nothing, 1
--        it is not there, or the reading after which it was looked up and was not there; number of lines, and for each
--        line: which item (1 is KEYS[3]), units
-- Returns for each reservation one of
--        the hold as it is stored: arrival|held_at_us|fingerprint|user|currency|item:units:gifts:price,...|granted_at_us
--        {reason, item at fault or '', units that are left or that the limit allows}
--        where the reason is REQUEST_ID_REUSED, EVENT_NOT_OPEN, EVENT_CLOSED, NOT_READY, ITEM_NOT_FOUND,
--        CURRENCY_MISMATCH, LIMIT_REACHED or SOLD_OUT
--        {KNOWN_BUYER, reading, 0}: nothing is decided, the ledger may have the order
--
-- A reading has for each line the units of the buyer in the ledger as they are stored, with their version. An order
-- that is committed after the look-up keeps its hold until sync.lua drops it, and in the same step copies those units
-- under a newer version. So if the reading is the same and there is no hold, no commit that the look-up has missed
-- counts against the buyer; otherwise the ledger has to be asked again.
--
-- A hold lives from here until the ledger has committed it. held_at_us is when it was last requested, so a sweep that
-- drops one that was never committed sees whether it was renewed since. granted_at_us stays: the ledger checks the
-- window as of then.
--
-- The units left are total - committed - held, never stored. A missing key is NOT_READY, never zero; so is an event
-- that was not compared with the ledger since this server began to run: it may be an earlier copy. So is an item of
-- which too few are left while changes of the ledger were skipped (`stale_from`): the units of these are committed, and
-- held until their own copy comes. This is the busiest script: each item is read once and written once a batch, and
-- texts are joined, not formatted. Runs behind run_id.lua.

local EVENT, HOLDS, FIRST_ITEM = KEYS[1], KEYS[2], 3
local ITEMS = #KEYS - FIRST_ITEM + 1
local NUMBERS = { 'total', 'limit', 'gift_total', 'committed', 'gift_committed', 'held', 'gift_held', 'stale_from' }
local tonumber, max = tonumber, math.max

-- The reservations; `first` to `last` are the places in ARGV of their lines, each two long.
local function parse()
  local asks, at = {}, ITEMS + 1
  while at <= #ARGV do
    local first = at + 5
    local last = first + 2 * (ARGV[at + 4] - 1)
    asks[#asks + 1] = { order = ARGV[at], user = ARGV[at + 1], fingerprint = ARGV[at + 2], ledger = ARGV[at + 3],
      first = first, last = last }
    at = last + 2
  end
  return asks
end

local function known_holds(asks)
  local orders, holds = {}, {}
  for i, ask in ipairs(asks) do
    orders[i] = ask.order
  end
  local found = redis.call('HMGET', HOLDS, unpack(orders))
  for i, order in ipairs(orders) do
    holds[order] = found[i] or nil
  end
  return holds
end

-- Returns an existing hold, renewed now; or the refusal if it is another request's.
local function renew(hold, ask, now_text)
  local arrival, fingerprint, rest = string.match(hold, '^(%d+)|%d+|(%x+)(|.+)$')
  if fingerprint == ask.fingerprint then
    return arrival .. now_text .. fingerprint .. rest
  end
  return nil, { 'REQUEST_ID_REUSED', '', 0 }
end

-- Returns the refusal for the whole event; nil inside the window.
local function closed_because(opens, closes, run_id, now)
  if not opens or run_id ~= RUN_ID then
    return 'NOT_READY'
  elseif now >= tonumber(closes) then
    return 'EVENT_CLOSED'
  elseif now < tonumber(opens) then
    return 'EVENT_NOT_OPEN'
  end
end

-- Reads an item with the held and committed units of its buyers in this batch: one HMGET.
local function load_item(item)
  local fields = { 'price', 'currency', unpack(NUMBERS) }
  local first_buyer = #fields + 1
  for _, user in ipairs(item.buyers) do
    fields[#fields + 1] = item.field[user]
    fields[#fields + 1] = 'c:' .. user
  end
  local values = redis.call('HMGET', item.key, unpack(fields))
  item.price, item.currency = values[1], values[2]
  for i, name in ipairs(NUMBERS) do
    item[name] = tonumber(values[i + 2])
  end
  for i, user in ipairs(item.buyers) do
    local at = first_buyer + 2 * (i - 1)
    local committed = values[at + 1]
    item.holds[user] = tonumber(values[at]) or 0
    item.has[user] = committed and tonumber(string.match(committed, '^%d+')) or 0
    item.knows[user] = committed
  end
end

-- Loads the items by their indexes in ARGV, with their buyers in this batch.
local function load_items(asks, offered)
  local items = {}
  for index = 1, ITEMS do
    local id = ARGV[index]
    items[tostring(index)] = { id = id, key = KEYS[FIRST_ITEM + index - 1], buyers = {}, field = {}, holds = {},
      has = {}, knows = {}, changed = {}, offered = offered and string.find(offered, id, 1, true) }
  end
  for _, ask in ipairs(asks) do
    local user = ask.user
    for at = ask.first, ask.last, 2 do
      local item = items[ARGV[at]]
      if not item.field[user] then
        item.field[user] = 'u:' .. user
        item.buyers[#item.buyers + 1] = user
      end
    end
  end
  for _, item in pairs(items) do
    load_item(item)
  end
  return items
end

-- Whether the ledger may have the order: the buyer has or had units of one of its items, or Redis does not know.
local function may_be_repeat(ask, items)
  for at = ask.first, ask.last, 2 do
    local item = items[ARGV[at]]
    if item.knows[ask.user] or (item.offered and not item.total) then
      return true
    end
  end
  return false
end

-- Returns the reading of the buyer. An item that is not staged is marked, since what it lacks may come with staging.
local function reading_of(ask, items)
  local reading = ''
  for at = ask.first, ask.last, 2 do
    local item = items[ARGV[at]]
    reading = reading .. '|' .. (item.total and '' or '-') .. (item.knows[ask.user] or '')
  end
  return reading
end

-- Returns the reading after which the ledger has to be asked for the order; nil if it was, or need not be.
local function ask_ledger_after(ask, items)
  if ask.ledger == '1' or (ask.ledger == '0' and not may_be_repeat(ask, items)) then
    return nil
  end
  local reading = reading_of(ask, items)
  if reading ~= ask.ledger then
    return reading
  end
end

-- Returns the refusal of a line; nil if it can be held.
local function refuse(item, currency, user, units)
  if not item.offered then
    return { 'ITEM_NOT_FOUND', item.id, 0 }
  elseif not item.total then
    return { 'NOT_READY', item.id, 0 }
  elseif currency and item.currency ~= currency then
    return { 'CURRENCY_MISMATCH', item.id, 0 }
  end
  local allowed = item.limit - item.has[user] - item.holds[user]
  if units > allowed then
    return { 'LIMIT_REACHED', item.id, max(allowed, 0) }
  end
  local left = item.total - item.committed - item.held
  if units > left then
    if item.stale_from and units <= left + item.held then
      return { 'NOT_READY', item.id, 0 }
    end
    return { 'SOLD_OUT', item.id, max(left, 0) }
  end
end

local function refuse_any(ask, items)
  local currency
  for at = ask.first, ask.last, 2 do
    local item = items[ARGV[at]]
    local refusal = refuse(item, currency, ask.user, tonumber(ARGV[at + 1]))
    if refusal then
      return refusal
    end
    currency = item.currency
  end
end

-- Takes the units of a line in the loaded item, and packs it.
local function take_line(item, user, units)
  local gift = '0'
  if item.gift_total - item.gift_committed - item.gift_held > 0 then
    item.gift_held = item.gift_held + 1
    gift = '1'
  end
  item.held = item.held + units
  item.holds[user] = item.holds[user] + units
  item.changed[user] = true
  return item.id .. ':' .. units .. ':' .. gift .. ':' .. item.price
end

-- Set once the time is known.
local granted_text

local function take(ask, items)
  local lines = take_line(items[ARGV[ask.first]], ask.user, ARGV[ask.first + 1])
  for at = ask.first + 2, ask.last, 2 do
    lines = lines .. ',' .. take_line(items[ARGV[at]], ask.user, ARGV[at + 1])
  end
  return ask.fingerprint .. '|' .. ask.user .. '|' .. items[ARGV[ask.first]].currency .. '|' .. lines .. granted_text
end

local function write_items(items)
  for _, item in pairs(items) do
    local fields = {}
    for user in pairs(item.changed) do
      fields[#fields + 1] = item.field[user]
      fields[#fields + 1] = item.holds[user]
    end
    if #fields > 0 then
      redis.call('HSET', item.key, 'held', item.held, 'gift_held', item.gift_held, unpack(fields))
    end
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now_text = string.format('|%.0f|', now)
granted_text = string.format('|%.0f', now)
local event = redis.call('HMGET', EVENT, 'opens_us', 'closes_us', 'items', 'arrivals', 'run_id', 'expires_ms')
local arrivals = tonumber(event[4])
local asks = parse()
local holds = known_holds(asks)
local shut = closed_because(event[1], event[2], event[5], now)
-- The buyers of an event that is not staged are not known, and before its first opening there are none. An event that
-- has granted units is before its opening again if the clock is set back or the window is moved: its buyers are known
-- all the same.
local is_asked_of_items = shut ~= 'NOT_READY' and (shut ~= 'EVENT_NOT_OPEN' or arrivals > 0)
local items = is_asked_of_items and load_items(asks, event[3])

local replies, changed, granted = {}, {}, 0
for i, ask in ipairs(asks) do
  local hold, refusal, reading = holds[ask.order], nil, nil
  if shut == 'NOT_READY' then
    -- Including holds: they may be of an earlier copy.
    hold, refusal = nil, { shut, '', 0 }
  elseif hold then
    hold, refusal = renew(hold, ask, now_text)
  else
    reading = items and ask_ledger_after(ask, items)
    if reading then
      refusal = { 'KNOWN_BUYER', reading, 0 }
    else
      refusal = shut and { shut, '', 0 } or refuse_any(ask, items)
    end
  end
  if not hold and not refusal then
    granted = granted + 1
    hold = arrivals + granted .. now_text .. take(ask, items)
    holds[ask.order] = hold
  end
  if hold then
    changed[#changed + 1] = ask.order
    changed[#changed + 1] = hold
  end
  replies[i] = refusal or hold
end

if #changed > 0 then
  redis.call('HSET', HOLDS, unpack(changed))
  if event[6] then
    -- They go with the event. Writes nothing unless they are the first ones since there were none.
    redis.call('PEXPIREAT', HOLDS, event[6], 'NX')
  end
end
if granted > 0 then
  write_items(items)
  redis.call('HSET', EVENT, 'arrivals', arrivals + granted)
end
return replies
