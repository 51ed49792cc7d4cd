-- Each payment that the buyer asked for. A repeat of any of them, however late, starts nothing.
CREATE TABLE pay_requests (
    order_id BINARY(16) NOT NULL,
    -- 1 for the first.
    attempt INT NOT NULL,
    request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- SHA-256 of what was asked for: tells a repeat from another payment under the same request_id.
    request_fingerprint BINARY(32) NOT NULL,
    asked_us BIGINT NOT NULL,
    PRIMARY KEY (order_id, attempt),
    UNIQUE KEY ux_pay_requests_request (order_id, request_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
