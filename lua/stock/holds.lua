-- Reads one page of the holds of an event that have been there for a while.
--
-- KEYS   1 the holds
-- ARGV   cursor ('0' to begin), about how many to look at, least age in microseconds
-- Returns {now_us, cursor of the next page ('0' after the last), {order, hold, order, hold, ...}}, a hold as reserve.lua
-- stores it. A hold may come twice.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local held_before = now - tonumber(ARGV[3])
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local aged = {}
for i = 1, #page[2], 2 do
  local held_at = string.match(page[2][i + 1], '^%d+|(%d+)|')
  if held_at and tonumber(held_at) <= held_before then
    aged[#aged + 1] = page[2][i]
    aged[#aged + 1] = page[2][i + 1]
  end
end
return { now, page[1], aged }
