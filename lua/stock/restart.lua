-- Makes work begin anew that was claimed, see claim.lua, whoever has it and however far it is. Runs behind prelude.lua.
--
-- KEYS   1 what claim.lua was called with
-- Returns 1.

redis.call('HDEL', KEYS[1], unpack(CLAIM))
return 1
