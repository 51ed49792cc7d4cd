-- The request that cancelled an order, or that an operator refunded it by. A repeat of it, however late, changes nothing.
CREATE TABLE end_requests (
    -- An order is cancelled or refunded once, and never both.
    order_id BINARY(16) NOT NULL,
    -- CANCEL or REFUND.
    verb VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    asked_by BINARY(16) NOT NULL,
    -- The asker's own name for the request.
    request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    asked_us BIGINT NOT NULL,
    PRIMARY KEY (order_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
