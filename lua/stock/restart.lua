-- Resets claimed work, see claim.lua, so that it begins anew, whoever has it and however far it is. Runs behind
-- prelude.lua.
--
-- KEYS   1 the key of claim.lua
-- Returns 1.

redis.call('HDEL', KEYS[1], unpack(CLAIM))
return 1
