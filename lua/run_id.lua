-- The run of the server that a script runs on: another one after a restart, a failover, or on another node of a
-- cluster. Put before every script that relies on what this server has; it decides nothing by itself.
--
-- KEYS   none of its own
-- ARGV   last, and taken off here: the run id as the connection has it, or '' if it leads to any node of a cluster
-- Returns nothing. Fails if the server does not say its run id: a restart would go unnoticed.

local RUN_ID = table.remove(ARGV)
-- Only a script knows on which node it runs: the slot may have moved since the call was sent.
if RUN_ID == '' then
  RUN_ID = assert(string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'),
    'the server does not say its run_id in INFO server')
end
