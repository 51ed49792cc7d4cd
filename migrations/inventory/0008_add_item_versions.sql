-- What the repair of Redis reads: which rows an item's change has touched, and which events may change at all.
ALTER TABLE ledger
    -- Version of the item's stock row with which this row was last changed. NULL in rows of before.
    ADD COLUMN item_version BIGINT NULL,
    -- The buyers whose rows were changed since a version. Its entries grow at the end of each item.
    ADD KEY ledger_by_change (item_id, item_version, user_id),
    -- The same name with `units` behind, so that what a buyer has, and a page of all buyers, costs no look-up of rows.
    DROP KEY ledger_by_buyer,
    ADD KEY ledger_by_buyer (item_id, user_id, state, units);

ALTER TABLE stock
    -- How many of its changes have their version in the ledger. While it is behind `version`, a release of before has
    -- made some, and what was changed since a version can't be told.
    ADD COLUMN numbered_changes BIGINT NOT NULL DEFAULT 0,
    -- Whether its event closed so long ago that nothing of it changes in Redis any more. Only leads past such rows: one
    -- that is not marked costs time and nothing else.
    ADD COLUMN is_over BOOLEAN NOT NULL DEFAULT FALSE,
    -- The events that are open, were so just now, or open soon.
    ADD KEY stock_by_opening (is_over, opens_at_us, closes_at_us, event_id);

-- Events whose items or window have changed and of which Redis may not have been told: written with the change, deleted
-- once it is told.
CREATE TABLE restages (
    event_id      BINARY(16) NOT NULL,
    -- The newest version of which it is to be told.
    event_version BIGINT     NOT NULL,
    PRIMARY KEY (event_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
