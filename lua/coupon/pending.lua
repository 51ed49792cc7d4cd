-- Reads a page of claims that were ranked and whose rows are not known to be stored.
--
-- Decides: only claims ranked at least the given time ago, by the server's TIME, are returned; younger ones are most
-- likely being stored right now.
--
-- KEYS[1]  pending hash: <user> = "rank|claimed_at_us|epoch|request_id"
-- ARGV[1]  least age in microseconds
-- ARGV[2]  cursor of the page before, 0 for the first
-- ARGV[3]  about how many claims to look at
--
-- Returns {cursor, claim...}; the cursor is '0' after the last page, a claim is
-- {user, rank, claimed_at_us, epoch, request_id}.

local pending = KEYS[1]
local least_age_us, cursor, count = tonumber(ARGV[1]), ARGV[2], ARGV[3]

local time = redis.call('TIME')
local ranked_before_us = time[1] * 1000000 + time[2] - least_age_us

-- HSCAN may return a claim twice, and a small hash as a whole whatever COUNT says. Storing a claim again is harmless.
local page = redis.call('HSCAN', pending, cursor, 'COUNT', count)
local reply = {page[1]}
for i = 1, #page[2], 2 do
  local rank, claimed_at_us, epoch, request_id = string.match(page[2][i + 1], '^(%d+)|(%d+)|(%d+)|(.*)$')
  -- A claim that does not parse, of another release or by hand, must not hold up the others.
  if claimed_at_us and tonumber(claimed_at_us) <= ranked_before_us then
    reply[#reply + 1] = {page[2][i], tonumber(rank), tonumber(claimed_at_us), tonumber(epoch), request_id}
  end
end
return reply
