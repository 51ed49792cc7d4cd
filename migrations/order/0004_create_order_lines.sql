-- What was bought, as priced and gifted when the units were held. Never changed.
CREATE TABLE order_lines (
    order_id BINARY(16) NOT NULL,
    -- Place in the order, from 0.
    line_no SMALLINT NOT NULL,
    item_id BINARY(16) NOT NULL,
    units INT NOT NULL,
    unit_price_minor BIGINT NOT NULL,
    gift_units INT NOT NULL,
    PRIMARY KEY (order_id, item_id),
    CONSTRAINT ck_order_lines_units CHECK (units > 0 AND gift_units >= 0 AND unit_price_minor >= 0)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
