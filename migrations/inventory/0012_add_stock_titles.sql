-- What orders show of an item, so that nobody has to ask the event. NULL: the event has not told it since this was
-- added.
ALTER TABLE stock
    ADD COLUMN title      VARCHAR(200) NULL,
    -- NULL also without a gift.
    ADD COLUMN gift_title VARCHAR(200) NULL;
