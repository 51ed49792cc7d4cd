-- The run of the server that a script runs on, as a master: another one after a restart, a failover, a demotion and
-- promotion of the same server, or on another node of a cluster. Redis calls it the replication id. Put before every
-- script that relies on data of this server; it decides nothing by itself.
--
-- Read by each call: a connection outlives a demotion, and a slot may have moved since the call was sent.
--
-- KEYS   none of its own
-- ARGV   none of its own
-- Returns nothing. Fails if the server does not say its replication id: a restart would go unnoticed.

local RUN_ID = assert(string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)'),
  'the server does not say its master_replid in INFO replication')

