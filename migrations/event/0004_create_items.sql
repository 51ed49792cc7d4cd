-- What the events offer. Written with the event, never changed.
CREATE TABLE items (
    id BINARY(16) NOT NULL,
    event_id BINARY(16) NOT NULL,
    -- Place in the event, from 0.
    position SMALLINT UNSIGNED NOT NULL,
    title VARCHAR(200) NOT NULL,
    unit_price_minor BIGINT NOT NULL,
    currency CHAR(3) CHARACTER SET ascii NOT NULL,
    total_units INT NOT NULL,
    limit_per_buyer INT NOT NULL,
    -- NULL for an item without a gift.
    gift_title VARCHAR(200) NULL,
    gift_total_units INT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY uq_items_position (event_id, position),
    CONSTRAINT ck_items_units CHECK (total_units > 0 AND limit_per_buyer > 0 AND unit_price_minor > 0),
    CONSTRAINT ck_items_gift CHECK (
        (gift_title IS NULL AND gift_total_units = 0) OR (gift_title IS NOT NULL AND gift_total_units > 0)
    )
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
