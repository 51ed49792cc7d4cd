-- What the ledger keeps of the grant, NULL in rows of before.
ALTER TABLE ledger
    -- When the script granted the units, by the clock of Redis: inside the window of the event. NULL again once the units
    -- of an order that was never written went back, so that it may be placed anew.
    ADD COLUMN granted_at_us       BIGINT     NULL,
    -- SHA-256 of what the buyer asked for: tells a repeat from another request for the same order.
    ADD COLUMN request_fingerprint BINARY(32) NULL;
