-- One row for each try to charge. The provider knows it by the key "<payment id>:<attempt>", and by no other ever.
CREATE TABLE attempts (
    payment_id BINARY(16) NOT NULL,
    -- 1 for the first of the payment.
    attempt INT NOT NULL,
    -- AttemptState of the contract without its prefix, such as UNKNOWN.
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    payment_method VARCHAR(255) NOT NULL,
    provider_charge_id VARCHAR(255) NULL,
    decline_code VARCHAR(64) NULL,
    -- When the next step is due. REQUESTED: waits since; CHARGING: the lease of who charges ends; UNKNOWN: the next
    -- look-up; NULL at an end.
    due_us BIGINT NULL,
    -- Look-ups that had no result so far.
    checks INT NOT NULL,
    -- The trace in which it was requested, carried on to what is told of it.
    traceparent VARCHAR(64) CHARACTER SET ascii NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (payment_id, attempt),
    -- The queues of the charge worker and of the reconciler.
    KEY ix_attempts_due (state, due_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
