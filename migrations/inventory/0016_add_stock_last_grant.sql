-- The latest place of arrival in the ledger of an item, and when Redis granted it: another order with this place, or
-- with a lower one that was granted later, shows that Redis has gone back to an earlier copy. Both are of one order, so
-- they stand beside last_arrival, which an earlier release writes without the time. NULL before the first order.
ALTER TABLE stock
    ADD COLUMN last_grant_arrival BIGINT NULL,
    ADD COLUMN last_grant_us      BIGINT NULL;
