-- What more than one stock script needs; put before sync.lua and stage.lua. It decides nothing by itself.

-- Lua's stack bounds how many arguments one call takes. Even, so that pairs stay together.
local MAX_ARGS = 1000

-- Runs a command with any number of arguments on one key.
local function on_hash(command, key, args)
  for first = 1, #args, MAX_ARGS do
    redis.call(command, key, unpack(args, first, math.min(first + MAX_ARGS - 1, #args)))
  end
end

-- The values of any number of fields, in their order; false where there is none.
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

-- Sets what the ledger has committed of an item, as of `version` of its stock row. The newest version wins, so a
-- repeat, or one that was overtaken, changes nothing. Each change of the ledger adds one to the version: where one was
-- skipped, what single buyers have is in doubt up to here, which `stale_at` keeps for whoever mends it.
local function copy_ledger(item, committed, gift_committed, version)
  local known = tonumber(redis.call('HGET', item, 'ledger_version')) or -1
  if version < known then
    return
  end
  redis.call('HSET', item, 'committed', committed, 'gift_committed', gift_committed, 'ledger_version', version)
  if version > known + 1 then
    redis.call('HSET', item, 'stale_at', version)
  end
end
