-- One row a purchase. Every transition changes it under its row lock and lets the version grow by one.
CREATE TABLE orders (
    id BINARY(16) NOT NULL,
    user_id BINARY(16) NOT NULL,
    event_id BINARY(16) NOT NULL,
    -- The buyer's own name for the request, from which the id is derived.
    request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- SHA-256 of what was asked for: tells a repeat from another order under the same request_id.
    request_fingerprint BINARY(32) NOT NULL,
    -- OrderState of the contract without its prefix, such as AWAITING_PAYMENT.
    state VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    version BIGINT NOT NULL,
    currency CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    subtotal_minor BIGINT NOT NULL,
    -- What the coupon took off in fact, so that subtotal less discount is the total.
    discount_minor BIGINT NOT NULL,
    total_minor BIGINT NOT NULL,
    coupon_id BINARY(16) NULL,
    -- Order of arrival in the event, given inside the reserving script.
    arrival BIGINT NOT NULL,
    -- Rows in pay_requests.
    payment_attempts INT NOT NULL,
    -- Set once, when the units are committed.
    pay_deadline_us BIGINT NULL,
    last_decline VARCHAR(64) NULL,
    reject_reason VARCHAR(64) CHARACTER SET ascii NULL,
    fulfilled_at_us BIGINT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (id),
    -- The deadline sweep.
    KEY ix_orders_due (state, pay_deadline_us),
    -- A buyer's orders, newest first.
    KEY ix_orders_buyer (user_id, created_us, id),
    -- An event's orders, as they arrived.
    KEY ix_orders_arrival (event_id, arrival, id),
    CONSTRAINT ck_orders_total CHECK (total_minor >= 0 AND discount_minor >= 0 AND subtotal_minor - discount_minor = total_minor)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
