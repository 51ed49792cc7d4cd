-- The request that cancelled an order, or that an operator refunded it by. A repeat of it, however late, changes nothing.
CREATE TABLE end_requests (
    order_id BINARY(16) NOT NULL,
    -- CANCEL or REFUND.
    verb VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The caller's own name for the request.
    request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    asked_us BIGINT NOT NULL,
    -- An order is cancelled or refunded once.
    PRIMARY KEY (order_id, verb)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
