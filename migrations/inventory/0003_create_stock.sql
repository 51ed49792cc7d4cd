-- What there is to sell, and how much of it the ledger has committed: one row an item.
--
-- version grows by one with each change of the committed units, under the row's lock; Redis keeps a copy of
-- the units with it, so that an old copy never replaces a newer one.
CREATE TABLE stock (
    item_id              BINARY(16) NOT NULL,
    event_id             BINARY(16) NOT NULL,
    event_version        BIGINT     NOT NULL,
    opens_at_us          BIGINT     NOT NULL,
    closes_at_us         BIGINT     NOT NULL,
    total_units          INT        NOT NULL,
    committed_units      INT        NOT NULL DEFAULT 0,
    limit_per_buyer      INT        NOT NULL,
    gift_total_units     INT        NOT NULL,
    gift_committed_units INT        NOT NULL DEFAULT 0,
    unit_price_minor     BIGINT     NOT NULL,
    currency             CHAR(3)    NOT NULL,
    version              BIGINT     NOT NULL DEFAULT 0,
    PRIMARY KEY (item_id),
    KEY stock_by_event (event_id),
    KEY stock_by_close (closes_at_us),
    CONSTRAINT stock_never_oversold CHECK (committed_units BETWEEN 0 AND total_units),
    CONSTRAINT stock_gifts_never_oversold CHECK (gift_committed_units BETWEEN 0 AND gift_total_units)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
