-- What a line and its gift are called, for orders whose lines are rows. An order that is one row has it in line_list:
-- {..., "title", "gift_title"}, each left out where it is not known.
ALTER TABLE order_lines
    ADD COLUMN title      VARCHAR(200) NULL,
    ADD COLUMN gift_title VARCHAR(200) NULL;
