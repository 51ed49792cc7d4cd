-- Starts staging a campaign that is missing, or whose contents are known to be wrong, or were put there before this
-- server began to run: they may be an earlier copy, in which ranks are free that were given. Runs behind run_id.lua.
--
-- Decides: a campaign that was staged on this run under another epoch than the stale one is left as it is, so any
-- number of callers may stage at once. Otherwise it is emptied and closed, under a new and greater epoch, until
-- load.lua has loaded its last page. The pending hash is left alone: those claims were ranked and may still be stored.
--
-- KEYS[1]  campaign hash: quota, next (ranks given so far), opens_us, closes_us, epoch, ready, run_id (of the server on
--          which it was staged), u:<user> = rank
-- ARGV[1]  epoch known to be wrong; 0 to stage only a missing campaign
-- ARGV[2]  quota
-- ARGV[3]  opens_us
-- ARGV[4]  closes_us
-- ARGV[5]  when Redis may forget the campaign, in milliseconds since the epoch; a campaign for which that is past is
--          gone at once
--
-- Returns {'ready', epoch} if claims are being ranked, {'staging', epoch} if the pages are to be loaded under epoch.

local campaign = KEYS[1]
local invalid_epoch, quota, opens_us, closes_us, expires_ms = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local found = redis.call('HMGET', campaign, 'epoch', 'ready', 'run_id')
local epoch = tonumber(found[1] or 0)
if epoch ~= 0 and epoch ~= invalid_epoch and found[3] == RUN_ID then
  -- Writes nothing but for a campaign that an earlier release staged, which would stay for ever.
  redis.call('PEXPIREAT', campaign, expires_ms, 'NX')
  return {found[2] == '1' and 'ready' or 'staging', epoch}
end

-- By the clock: greater than any epoch of a campaign that Redis has lost, which may still be on its way in a call. One
-- more than the last epoch, should the clock have been set back.
local time = redis.call('TIME')
epoch = math.max(epoch + 1, time[1] * 1000000 + time[2])
-- UNLINK frees the memory in the background: DEL of a large campaign would block the server.
redis.call('UNLINK', campaign)
redis.call('HSET', campaign,
  'quota', quota, 'next', 0, 'opens_us', opens_us, 'closes_us', closes_us,
  'epoch', string.format('%.0f', epoch), 'ready', 0, 'run_id', RUN_ID)
-- The pending hash has no such time: a ranked claim stays there until its row is stored, however long that takes.
redis.call('PEXPIREAT', campaign, expires_ms)
return {'staging', epoch}
