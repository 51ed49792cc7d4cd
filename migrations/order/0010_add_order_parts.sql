-- An order is one row with all that belongs to it, where an earlier release wrote rows of its own for each line, each
-- payment and all goods: a row costs the server most of what an order costs. Goods are not stored at all, since they
-- are the lines and their gifts as of fulfilled_at_us.
ALTER TABLE orders
    -- The lines as JSON, in the sequence of the request: [{"item": hex of the id, "units", "price", "gifts"}, ...].
    -- NULL: the order was written by an earlier release, or beside one, and its parts are rows of other tables.
    ADD COLUMN line_list TEXT NULL,
    -- The first 8 payments as JSON: [{"request": request_id, "method": hex of the fingerprint}, ...]. Further ones are
    -- rows of pay_requests.
    ADD COLUMN pay_list TEXT NULL,
    -- How often the message that an order waits for an answer to was sent again.
    ADD COLUMN asks INT NOT NULL DEFAULT 0,
    -- When something is to be done that nobody asks for, and NULL once the order has ended: above 0 the deadline, 0 for
    -- an order that an earlier release left PENDING, below 0 the negated time since which it waits for another service.
    -- Generated, so that it is right for what an earlier release writes too.
    ADD COLUMN due_us BIGINT GENERATED ALWAYS AS (
        CASE
            WHEN state IN ('AWAITING_PAYMENT', 'PAYING') THEN pay_deadline_us
            WHEN state = 'PENDING' THEN 0
            WHEN state IN ('PAID', 'REFUNDING') THEN -updated_us
        END
    ) STORED,
    -- Changed twice for an order, where ix_orders_due, by state and deadline, changes with each transition.
    ADD KEY ix_orders_waiting (due_us);

-- An earlier release forces ix_orders_due, so it stays where one has run, until a later file drops it. Anywhere else
-- nobody reads it, and each order would pay for it.
SET @drop_due = IF((SELECT MAX(epoch) = 0 FROM outbox_leases), 'ALTER TABLE orders DROP KEY ix_orders_due', 'DO 0');
PREPARE drop_due FROM @drop_due;
EXECUTE drop_due;
DEALLOCATE PREPARE drop_due;

-- How new orders are written. A schema on which an earlier release has run begins with rows in many tables, since a
-- replica of that release cannot read the other form; see "Roll-out" in docs/operations.md.
CREATE TABLE order_form (
    id TINYINT NOT NULL,
    -- Whether a new order is one row.
    one_row BOOLEAN NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The epoch of a partition grows when a relay takes it, and is never reset.
INSERT INTO order_form (id, one_row) SELECT 1, MAX(epoch) = 0 FROM outbox_leases;
