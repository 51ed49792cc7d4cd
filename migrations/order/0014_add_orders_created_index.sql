-- Everybody's orders by the time at which they were accepted, newest first, for the operator. New ones come at its end.
ALTER TABLE orders ADD KEY ix_orders_created (created_us, id);
