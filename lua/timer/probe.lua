-- Sets a key that expires soon, to find out whether this server publishes expired keys. One that was set before and
-- whose time is up expires here: a server looks for such keys by samples only, but never writes over one without
-- noticing.
--
-- KEYS[1]  a key that nobody else has, named as a timer
-- ARGV[1]  milliseconds until it expires
-- Returns  1

redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
return 1
