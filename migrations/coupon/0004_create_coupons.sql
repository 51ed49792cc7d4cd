-- What the claims yielded. The keys uphold the promise: no more than the quota, one a user, no rank twice.
CREATE TABLE coupons (
    -- Derived from the campaign and the user.
    id BINARY(16) NOT NULL,
    campaign_id BINARY(16) NOT NULL,
    user_id BINARY(16) NOT NULL,
    -- Order of arrival in the campaign: 1 came first.
    rank_no INT NOT NULL,
    -- The quota of the campaign again, so that a CHECK can hold the rank to it.
    campaign_quota INT NOT NULL,
    state VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- Order that holds or used it.
    order_id BINARY(16) NULL,
    -- SHA-256 of what the request asked for that it is held for: no other request of the order may have or return it.
    held_fingerprint BINARY(32) NULL,
    -- request_id of the claim.
    request_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    version BIGINT NOT NULL,
    -- When the claim was ranked.
    created_us BIGINT NOT NULL,
    -- When the state last changed, or an order last asked for the hold it has.
    updated_us BIGINT NOT NULL,
    -- In order of arrival: a rush is written to the end of the table.
    PRIMARY KEY (campaign_id, rank_no),
    UNIQUE KEY uq_coupons_id (id),
    -- The user first, so that it lists the coupons of a user too.
    UNIQUE KEY uq_coupons_user (user_id, campaign_id),
    KEY ix_coupons_state (state, updated_us, id),
    CONSTRAINT ck_coupons_rank CHECK (rank_no BETWEEN 1 AND campaign_quota),
    CONSTRAINT ck_coupons_state CHECK (
        (state = 'ISSUED' AND order_id IS NULL) OR (state IN ('HELD', 'USED') AND order_id IS NOT NULL)
    ),
    CONSTRAINT ck_coupons_held CHECK ((state = 'HELD') = (held_fingerprint IS NOT NULL))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
