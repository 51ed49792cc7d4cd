-- Charges of which the provider's list of refunds says that something was given back by hand, and which the provider
-- does not show when it is asked for them. Each is looked up again until it is shown; the list is read on meanwhile.
CREATE TABLE unread_refunds (
    -- The provider's id of the charge.
    charge_id VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- When it is looked up next.
    due_us BIGINT NOT NULL,
    -- How often it was, since its page was read.
    tries INT NOT NULL,
    PRIMARY KEY (charge_id),
    KEY ix_unread_refunds_due (due_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
