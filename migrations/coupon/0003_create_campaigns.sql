-- Batches of coupons with a quota. Nothing of a campaign ever changes but settled_us and
-- told_version.
CREATE TABLE campaigns (
    -- Derived from the creator and the request_id, so a repeat finds the same row.
    id BINARY(16) NOT NULL,
    creator_id BINARY(16) NOT NULL,
    request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(200) NOT NULL,
    quota INT NOT NULL,
    discount_minor BIGINT NOT NULL,
    currency CHAR(3) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- The only event in which the coupons count; NULL for any.
    event_id BINARY(16) NULL,
    opens_at_us BIGINT NOT NULL,
    closes_at_us BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    -- When it was certain that no claim is under way or unfinished any more; NULL while the sweeps look after it.
    settled_us BIGINT NULL,
    -- How many messages tell of its coupons: the version of each is allocated under the lock of this row.
    told_version BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    KEY ix_campaigns_created (created_us, id),
    KEY ix_campaigns_unsettled (settled_us, id),
    CONSTRAINT ck_campaigns_quota CHECK (quota > 0),
    CONSTRAINT ck_campaigns_discount CHECK (discount_minor > 0),
    CONSTRAINT ck_campaigns_window CHECK (closes_at_us > opens_at_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
