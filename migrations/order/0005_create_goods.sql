-- What the buyer got: written in the transaction that makes the order FULFILLED, and kept as a record after a refund.
CREATE TABLE goods (
    order_id BINARY(16) NOT NULL,
    item_id BINARY(16) NOT NULL,
    -- ITEM or GIFT.
    kind VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    units INT NOT NULL,
    granted_at_us BIGINT NOT NULL,
    PRIMARY KEY (order_id, item_id, kind),
    CONSTRAINT ck_goods_units CHECK (units > 0)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
