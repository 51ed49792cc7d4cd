-- Events that were cancelled, as their messages say, and how far their orders are: what is not paid is cancelled, and
-- what is paid is refunded if the operator wants it so. The orders are walked through again and again until all have
-- ended.
CREATE TABLE cancelled_events (
    event_id BINARY(16) NOT NULL,
    -- Of the newest message.
    event_version BIGINT NOT NULL,
    refund_paid_orders BOOLEAN NOT NULL,
    cancel_us BIGINT NOT NULL,
    -- When the newest message was applied.
    received_us BIGINT NOT NULL,
    -- When the orders are to be walked through next, or how long a walk under way has them for itself; NULL once they
    -- need no more of it.
    next_walk_us BIGINT NULL,
    -- The orders as they were counted last.
    ended_orders INT NOT NULL DEFAULT 0,
    kept_orders INT NOT NULL DEFAULT 0,
    refunding_orders INT NOT NULL DEFAULT 0,
    refunded_orders INT NOT NULL DEFAULT 0,
    remaining_orders INT NOT NULL DEFAULT 0,
    counted_us BIGINT NULL,
    -- Whether the counts are of all orders. Those of the first walk are written while it is under way.
    is_whole BOOLEAN NOT NULL DEFAULT FALSE,
    -- When all orders had ended; NULL before.
    settled_us BIGINT NULL,
    PRIMARY KEY (event_id),
    KEY ix_cancelled_events_walk (next_walk_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
