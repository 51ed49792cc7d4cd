-- What the provider says and the payments cannot be, until somebody or the provider has settled it. A charge or a refund
-- that is PARKED has an open row here; of another anomaly there is a row, and its payment stays as it is.
CREATE TABLE anomalies (
    -- In the order in which they were found.
    id BIGINT NOT NULL AUTO_INCREMENT,
    payment_id BINARY(16) NOT NULL,
    attempt INT NOT NULL,
    -- CHARGE or REFUND.
    subject VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- Such as WRONG_AMOUNT.
    kind VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- What the provider has said.
    detail VARCHAR(1024) NOT NULL,
    -- OPEN waits for a decision; DECIDED is to be carried out; SETTLED is done with.
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'OPEN',
    -- RETRY, DECLINED, REFUNDED or NOTED; NULL where the provider settled it by a later answer.
    verdict VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
    decided_by VARCHAR(128) NULL,
    decided_why TEXT NULL,
    decided_us BIGINT NULL,
    found_us BIGINT NOT NULL,
    settled_us BIGINT NULL,
    PRIMARY KEY (id),
    KEY ix_anomalies_state (state, id),
    KEY ix_anomalies_attempt (payment_id, attempt),
    CONSTRAINT ck_anomalies_subject CHECK (subject IN ('CHARGE', 'REFUND')),
    CONSTRAINT ck_anomalies_state CHECK (state IN ('OPEN', 'DECIDED', 'SETTLED')),
    CONSTRAINT ck_anomalies_verdict CHECK (verdict IN ('RETRY', 'DECLINED', 'REFUNDED', 'NOTED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- How far the lists of the provider have been read.
CREATE TABLE provider_cursors (
    -- Such as refunds.
    list VARCHAR(32) CHARACTER SET ascii NOT NULL,
    -- The provider's id of the last entry that was read.
    after_id VARCHAR(255) NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (list)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
