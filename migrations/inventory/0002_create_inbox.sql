-- Messages that took effect: written in the transaction of the effect, so each takes effect once.
CREATE TABLE inbox (
    -- The CloudEvents source and id, which together name a message.
    source VARCHAR(32) CHARACTER SET ascii NOT NULL,
    message_id BIGINT UNSIGNED NOT NULL,
    processed_us BIGINT NOT NULL,
    -- Ids of one source grow with time, so the oldest records come first.
    PRIMARY KEY (source, message_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Keys of which a message became a dead letter: later messages of the key are set aside behind it. Earlier ones of the
-- same batch still take effect.
CREATE TABLE inbox_parked (
    topic VARCHAR(128) CHARACTER SET ascii NOT NULL,
    message_key VARCHAR(64) CHARACTER SET ascii NOT NULL,
    -- Offset of the first dead letter of the key.
    from_offset BIGINT NOT NULL,
    parked_us BIGINT NOT NULL,
    PRIMARY KEY (topic, message_key)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
