-- Reads one page of the held and committed units of an item by buyer.
--
-- KEYS   1 the item
-- ARGV   cursor ('0' to begin), about how many fields to look at
-- Returns {cursor of the next page ('0' after the last), {user, units on hold, ...}, {user, units in the ledger, ...}}.
-- A buyer may come twice.

local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local held, committed = {}, {}
for i = 1, #page[2], 2 do
  local kind, user = string.match(page[2][i], '^([uc]):(.+)$')
  local units = kind and string.match(page[2][i + 1], '^%d+')
  if units then
    local list = kind == 'u' and held or committed
    list[#list + 1] = user
    list[#list + 1] = units
  end
end
return { page[1], held, committed }
