-- Who has asked for units that the ledger has committed, for orders of which it is not known yet that they were written:
-- one row a request, so concurrent duplicates of one order have one each.
--
-- The rows are the right to give the units back without a message of the order: whoever deletes the last one of an order
-- that was not written gives its units back in the same transaction. They go once the order is known to be written.
CREATE TABLE reservations (
    order_id    BINARY(16) NOT NULL,
    asked_at_us BIGINT     NOT NULL,
    PRIMARY KEY (order_id, asked_at_us),
    -- The sweep of unwritten orders.
    KEY reservations_by_age (asked_at_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
