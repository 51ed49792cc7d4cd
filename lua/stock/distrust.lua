-- Distrusts an event: makes it NOT_READY until it was compared with the ledger, and drops its holds. Redis was rolled
-- back to an earlier copy of it while the server ran, which its run does not show. Nothing happens if Redis has given
-- all places of arrival that the ledger has: then it gives none of them again. Without the field it has given none, not
-- even as many as a ledger without orders has.
--
-- The holds may have places that other orders have too, and a repeat would take such a place to the ledger long after.
-- What is on its way there without its hold is decided all the same. The items still count the holds as held, which
-- count.lua sets right before the event is ready.
--
-- KEYS   1 the event, 2 its holds
-- ARGV   last place of arrival that the ledger has committed
-- Returns 1 if it was compared and is not any more, 0 if nothing has changed.

local EVENT, HOLDS, LAST_PLACE = KEYS[1], KEYS[2], tonumber(ARGV[1])

local event = redis.call('HMGET', EVENT, 'run_id', 'arrivals')
if not event[1] or (tonumber(event[2]) or -1) >= LAST_PLACE then
  return 0
end
redis.call('HDEL', EVENT, 'run_id')
redis.call('DEL', HOLDS)
return 1
