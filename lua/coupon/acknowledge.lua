-- Removes claims from the pending hash: their rows are in MySQL, or it is certain that they never will be.
--
-- Decides: only a field that still has the rank given is dropped, so a late call can't drop a newer claim of the user.
--
-- KEYS[1]  pending hash: <user> = "rank|claimed_at_us|epoch|request_id"
-- ARGV     user, rank for each claim; at most 256 claims
--
-- Returns the number of claims dropped.

local users = {}
for i = 1, #ARGV, 2 do
  users[#users + 1] = ARGV[i]
end

-- Read and compared here, in one atomic step: between an HGET and an HDEL of the caller the user could be ranked anew.
local acknowledged = {}
for i, claim in ipairs(redis.call('HMGET', KEYS[1], unpack(users))) do
  if claim and string.match(claim, '^(%d+)|') == ARGV[2 * i] then
    acknowledged[#acknowledged + 1] = users[i]
  end
end
if #acknowledged == 0 then
  return 0
end
return redis.call('HDEL', KEYS[1], unpack(acknowledged))
