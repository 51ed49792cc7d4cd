-- Arms the timers of one event: one expiring key for each transition still ahead, so that Redis publishes when the key
-- expires. A timer only makes the event punctual without a poll of the database; nothing depends on it.
--
-- The value of a timer is the version of the event it was armed for. A call that was overtaken by a newer one changes
-- nothing, so an old time never replaces a new one.
--
-- KEYS[1]  timer of the opening
-- KEYS[2]  timer of the closing
-- ARGV[1]  version of the event
-- ARGV[2]  when it opens, in milliseconds since the epoch; 0 when that is no longer ahead
-- ARGV[3]  when it closes, in milliseconds since the epoch; 0 when that is no longer ahead
-- Returns  1 when the timers are those of this version, 0 when a newer version had armed them already

local version = tonumber(ARGV[1])

for i = 1, 2 do
  local armed_for = tonumber(redis.call('GET', KEYS[i]) or '0')
  if armed_for > version then
    return 0
  end
end

for i = 1, 2 do
  local at = tonumber(ARGV[i + 1])
  if at > 0 then
    redis.call('SET', KEYS[i], ARGV[1], 'PXAT', ARGV[i + 1])
  else
    redis.call('DEL', KEYS[i])
  end
end

return 1
