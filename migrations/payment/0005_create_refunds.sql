-- Captured money that goes back. The provider knows it by the key "<payment id>:<attempt>:refund".
CREATE TABLE refunds (
    payment_id BINARY(16) NOT NULL,
    -- The attempt whose charge goes back. It is the payment's captured_attempt, unless a surplus charge goes back.
    attempt INT NOT NULL,
    -- REQUESTED or REFUNDED.
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- NULL if nothing was to be paid, so there was no charge.
    provider_charge_id VARCHAR(255) NULL,
    provider_refund_id VARCHAR(255) NULL,
    currency CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    amount_minor BIGINT NOT NULL,
    -- When the provider is to be asked (again); NULL once REFUNDED.
    due_us BIGINT NULL,
    -- Tries that had no result so far.
    checks INT NOT NULL,
    traceparent VARCHAR(64) CHARACTER SET ascii NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (payment_id, attempt),
    KEY ix_refunds_due (state, due_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
