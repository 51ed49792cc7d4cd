-- Orders that have ended unpaid while their payment was captured, or might still be. What was captured is told again until
-- it is refunded, some times at most: the message may have been discarded. An order that has units again passes it over.
CREATE TABLE ended_orders (
    payment_id BINARY(16) NOT NULL,
    -- When it is looked at next.
    due_us BIGINT NOT NULL,
    -- How often it was told again.
    tells INT NOT NULL,
    PRIMARY KEY (payment_id),
    KEY ix_ended_orders_due (due_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
