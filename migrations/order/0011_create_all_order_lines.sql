-- The lines of all orders in whichever form, for whoever looks into the schema and for the audit. The service reads the
-- tables.
CREATE SQL SECURITY INVOKER VIEW all_order_lines AS
    SELECT order_id, item_id, units, unit_price_minor, gift_units FROM order_lines
    UNION ALL
    SELECT o.id, UNHEX(l.item), l.units, l.price, l.gifts
    FROM orders o, JSON_TABLE(
        -- What is no JSON has no lines, instead of failing every query.
        CASE WHEN JSON_VALID(o.line_list) THEN o.line_list END,
        '$[*]' COLUMNS (
            item CHAR(32) PATH '$.item',
            units INT PATH '$.units',
            price BIGINT PATH '$.price',
            gifts INT PATH '$.gifts'
        )
    ) AS l;
