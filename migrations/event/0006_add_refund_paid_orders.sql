-- Whether the paid orders of a cancelled event are refunded. Of any other event it means nothing.
ALTER TABLE events ADD COLUMN refund_paid_orders BOOLEAN NOT NULL DEFAULT FALSE;
