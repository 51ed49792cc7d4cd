-- How far a walk through the orders of a cancelled event is, so that whoever has it next goes on there, and whether an
-- order has changed since, so that walks can become rare while none does.
ALTER TABLE cancelled_events
    -- The value of next_walk_us under which the following were written. If next_walk_us is another, as a replica of the
    -- release before sets it, they are of no walk.
    ADD COLUMN walk_token_us BIGINT NULL,
    -- When the walk began.
    ADD COLUMN walk_begun_us BIGINT NULL,
    -- The last order that it has treated; NULL before the first.
    ADD COLUMN walk_arrival BIGINT NULL,
    ADD COLUMN walk_order_id BINARY(16) NULL,
    -- The orders as it has counted them up to there.
    ADD COLUMN walk_ended_orders INT NOT NULL DEFAULT 0,
    ADD COLUMN walk_kept_orders INT NOT NULL DEFAULT 0,
    ADD COLUMN walk_refunding_orders INT NOT NULL DEFAULT 0,
    ADD COLUMN walk_refunded_orders INT NOT NULL DEFAULT 0,
    ADD COLUMN walk_remaining_orders INT NOT NULL DEFAULT 0,
    -- When an order that had come to its end began again last.
    ADD COLUMN reopened_us BIGINT NULL,
    -- Whether the money of an order has come back since the last walk began.
    ADD COLUMN has_changed BOOLEAN NOT NULL DEFAULT FALSE;
