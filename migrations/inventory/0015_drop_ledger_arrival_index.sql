-- The ledger's index by arrival only answered which place was the last one, which stock knows now, and cost each order
-- an entry. An earlier release does not write that down, so where one has run the index stays, until a later file drops
-- it: as long as it is there, it is asked. The epoch of a partition grows when a relay takes it, and is never reset.
SET @drop_arrival = IF(
    (SELECT MAX(epoch) = 0 FROM outbox_leases), 'ALTER TABLE ledger DROP KEY ledger_by_arrival', 'DO 0'
);
PREPARE drop_arrival FROM @drop_arrival;
EXECUTE drop_arrival;
DEALLOCATE PREPARE drop_arrival;
