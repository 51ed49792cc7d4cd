-- What a line and its gift are called, for orders whose lines are rows. An order that is one row has it in line_list:
-- {..., "title", "gift_title"}, each left out where it is not known.
ALTER TABLE order_lines
    ADD COLUMN title      VARCHAR(200) NULL,
    ADD COLUMN gift_title VARCHAR(200) NULL;

-- Everybody's orders by the time at which they were accepted, newest first, for the operator. New ones come at its end.
ALTER TABLE orders ADD KEY ix_orders_created (created_us, id);
