-- Orders that were refunded and had a coupon: a repeat of their fulfilment does not use the coupon again.
CREATE TABLE refunded_orders (
    coupon_id BINARY(16) NOT NULL,
    order_id BINARY(16) NOT NULL,
    refunded_us BIGINT NOT NULL,
    PRIMARY KEY (coupon_id, order_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
