-- How far walks through whole tables are, so that one replica at a time goes on with each, and no walk begins anew
-- because a process does.
CREATE TABLE walks (
    -- Such as ended_orders.
    name VARCHAR(32) CHARACTER SET ascii NOT NULL,
    -- The row of the ledger that was looked at last; NULL before the first.
    after_order_id BINARY(16) NULL,
    after_item_id BINARY(16) NULL,
    -- When the next turn may begin. Whoever sets this has the turn until then, and writes nothing once somebody else
    -- has set it.
    next_us BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
