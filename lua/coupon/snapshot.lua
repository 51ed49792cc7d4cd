-- Reads the progress of a campaign, without changing it.
--
-- KEYS[1]  campaign hash: quota, next (ranks given so far), opens_us, closes_us, epoch, ready, u:<user> = rank
-- KEYS[2]  pending hash: <user> = "rank|claimed_at_us|epoch|request_id"
--
-- Returns {ready (0 or 1), epoch, quota, issued, pending}, or {} if the campaign is missing. Issued is the number of
-- ranks given so far; pending is how many of those are not known to be stored.

local state = redis.call('HMGET', KEYS[1], 'ready', 'epoch', 'quota', 'next')
if not state[2] then
  return {}
end
return {
  tonumber(state[1]), tonumber(state[2]), tonumber(state[3]), tonumber(state[4]), redis.call('HLEN', KEYS[2]),
}
