-- Functions that more than one stock script needs; put before sync.lua, stage.lua, count.lua, recount.lua, claim.lua,
-- advance.lua and restart.lua. It decides nothing by itself.

-- The fields of a claim, see claim.lua: who has it, until when, on which run of the server, how far it is.
local CLAIM = { 'claim_owner', 'claim_until', 'claim_run', 'claim_cursor' }

-- Most arguments of one call, which Lua's stack bounds. Even, so that pairs stay together.
local MAX_ARGS = 1000

-- Runs a command with any number of arguments on one key.
local function on_hash(command, key, args)
  for first = 1, #args, MAX_ARGS do
    redis.call(command, key, unpack(args, first, math.min(first + MAX_ARGS - 1, #args)))
  end
end

-- Returns the values of any number of fields, in their order; false where there is none.
local function values_of(key, fields)
  local values = {}
  for first = 1, #fields, MAX_ARGS do
    local part = redis.call('HMGET', key, unpack(fields, first, math.min(first + MAX_ARGS - 1, #fields)))
    for i = 1, #part do
      values[first + i - 1] = part[i]
    end
  end
  return values
end

-- Sums the holds of an event for the items with these ids: of each its units, its gifts, and the units by buyer.
local function units_on_hold(holds, ids)
  local held = {}
  for _, id in ipairs(ids) do
    held[id] = { units = 0, gifts = 0, users = {} }
  end
  for _, hold in ipairs(redis.call('HVALS', holds)) do
    local user, lines = string.match(hold, '^%d+|%d+|%x+|([^|]+)|%u+|([^|]+)')
    for id, units, gifts in string.gmatch(lines or '', '([^:,]+):(%d+):(%d+):%d+') do
      local item = held[id]
      if item then
        item.units, item.gifts = item.units + tonumber(units), item.gifts + tonumber(gifts)
        item.users[user] = (item.users[user] or 0) + tonumber(units)
      end
    end
  end
  return held
end

-- Removes the versions from `first` to `version` from the stale range of single buyers: those are known now. One range
-- is kept, so versions in its middle alone change nothing.
local function end_doubt(item, first, version)
  local values = redis.call('HMGET', item, 'stale_from', 'stale_at')
  local from, to = tonumber(values[1]), tonumber(values[2])
  if not from then
    return
  elseif first <= from and version >= to then
    redis.call('HDEL', item, 'stale_from', 'stale_at')
  elseif first <= from and version >= from then
    redis.call('HSET', item, 'stale_from', version + 1)
  elseif first <= to and version >= to then
    redis.call('HSET', item, 'stale_at', first - 1)
  end
end

-- Sets the committed units of an item, as of `version` of its stock row. The newest version wins, so a repeat, or a
-- copy that was overtaken, changes nothing. Each change of the ledger adds one to the version, and this copy has the
-- changes from `first` on, none if that is beyond `version`. If changes were skipped, from `stale_from` to `stale_at`,
-- the units of single buyers are stale; a copy that has these changes, now or later, makes them fresh.
local function copy_ledger(item, committed, gift_committed, first, version)
  local values = redis.call('HMGET', item, 'ledger_version', 'stale_from', 'stale_at')
  local known = tonumber(values[1]) or -1
  if version >= known then
    redis.call('HSET', item, 'committed', committed, 'gift_committed', gift_committed, 'ledger_version', version)
    if version > 0 and first > known + 1 then
      redis.call('HSET', item, 'stale_from', math.min(tonumber(values[2]) or known + 1, known + 1), 'stale_at',
        math.max(tonumber(values[3]) or 0, first - 1))
    end
  end
  end_doubt(item, first, version)
end
