-- The ledger: which units are taken, by whom, for which order. A row is never deleted; units that came back
-- are RELEASED, and COMMITTED again if the order turns out to be paid late.
CREATE TABLE ledger (
    order_id        BINARY(16)  NOT NULL,
    item_id         BINARY(16)  NOT NULL,
    user_id         BINARY(16)  NOT NULL,
    event_id        BINARY(16)  NOT NULL,
    arrival         BIGINT      NOT NULL,
    units           INT         NOT NULL,
    gift_units      INT         NOT NULL,
    state           VARCHAR(16) NOT NULL,
    committed_at_us BIGINT      NOT NULL,
    released_at_us  BIGINT      NULL,
    PRIMARY KEY (order_id, item_id),
    KEY ledger_by_buyer (item_id, user_id, state),
    KEY ledger_by_arrival (event_id, arrival),
    CONSTRAINT ledger_units_positive CHECK (units > 0 AND gift_units >= 0),
    CONSTRAINT ledger_state_known CHECK (state IN ('COMMITTED', 'RELEASED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
