-- The last place of arrival that the ledger has seen of an item, written with the item's units. NULL before its first
-- order, and where only earlier releases have written.
ALTER TABLE stock ADD COLUMN last_arrival BIGINT NULL;
