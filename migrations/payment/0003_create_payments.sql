-- One row an order. Every change is made under its row lock and lets the version grow by one.
CREATE TABLE payments (
    -- Derived from the order, so a repeated request is the same payment.
    id BINARY(16) NOT NULL,
    order_id BINARY(16) NOT NULL,
    user_id BINARY(16) NOT NULL,
    -- PaymentState of the contract without its prefix, such as CAPTURED.
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    currency CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    amount_minor BIGINT NOT NULL,
    captured_minor BIGINT NOT NULL,
    refunded_minor BIGINT NOT NULL,
    -- The attempt that captured the money; NULL while OPEN.
    captured_attempt INT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY uq_payments_order (order_id),
    -- A buyer's payments, newest first.
    KEY ix_payments_user (user_id, created_us, id),
    -- Everybody's, for the operator.
    KEY ix_payments_created (created_us, id),
    CONSTRAINT ck_payments_refunded CHECK (refunded_minor >= 0 AND refunded_minor <= captured_minor),
    CONSTRAINT ck_payments_captured CHECK (captured_minor <= amount_minor)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
