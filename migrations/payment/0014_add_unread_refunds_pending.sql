-- Charges of which a refund by hand was pending when the list was read. The provider shows them, and what is given back
-- by the refund only once it is done: each is looked up for two weeks at least.
ALTER TABLE unread_refunds
    ADD COLUMN is_pending BOOLEAN NOT NULL DEFAULT FALSE,
    -- Whether the provider has not shown the charge when it was last looked up.
    ADD COLUMN is_unread BOOLEAN NOT NULL DEFAULT TRUE;
