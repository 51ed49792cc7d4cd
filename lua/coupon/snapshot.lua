-- Reads the progress of a campaign, without changing it. Runs behind run_id.lua.
--
-- KEYS[1]  campaign hash: quota, next (ranks given so far), opens_us, closes_us, epoch, ready, run_id (of the server on
--          which it was staged), u:<user> = rank
-- KEYS[2]  pending hash: <user> = "rank|claimed_at_us|epoch|request_id"
--
-- Returns {ready (0 or 1), epoch, quota, issued, pending}, or {} if the campaign is missing. Issued is the number of
-- ranks given so far; pending is how many of those are not known to be stored. A campaign that was staged
-- before this server began to run is not ready.

local state = redis.call('HMGET', KEYS[1], 'ready', 'epoch', 'quota', 'next', 'run_id')
if not state[2] then
  return {}
end
local ready = state[5] == RUN_ID and tonumber(state[1]) or 0
return {
  ready, tonumber(state[2]), tonumber(state[3]), tonumber(state[4]), redis.call('HLEN', KEYS[2]),
}
