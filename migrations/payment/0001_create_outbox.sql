-- Messages written in the transaction that changes the state, and sent to Kafka by the relay.
-- The columns id, aggregatetype, aggregateid, type and payload are those that Debezium's outbox event router reads.
CREATE TABLE outbox (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    -- Hash of the aggregate: all messages of one aggregate are sent by whoever leases this partition.
    partition_no SMALLINT UNSIGNED NOT NULL,
    aggregatetype VARCHAR(32) CHARACTER SET ascii NOT NULL,
    aggregateid VARCHAR(64) CHARACTER SET ascii NOT NULL,
    -- Allocated under the row lock of the aggregate, so it orders the aggregate's messages.
    aggregate_version BIGINT NOT NULL,
    type VARCHAR(96) CHARACTER SET ascii NOT NULL,
    payload BLOB NOT NULL,
    traceparent VARCHAR(64) CHARACTER SET ascii NULL,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The messages that Kafka has not acknowledged: written with them, deleted once it has. A row of its own is cheaper than
-- a mark on the message, which would move it in an index, and there are only ever a few.
CREATE TABLE outbox_unsent (
    id BIGINT UNSIGNED NOT NULL,
    -- That of the message, so that the relay filters without reading it.
    partition_no SMALLINT UNSIGNED NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT fk_outbox_unsent_id FOREIGN KEY (id) REFERENCES outbox (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Who may send which partition. The epoch grows whenever the owner changes.
CREATE TABLE outbox_leases (
    partition_no SMALLINT UNSIGNED NOT NULL,
    owner VARCHAR(64) CHARACTER SET ascii NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL,
    expires_us BIGINT NOT NULL,
    PRIMARY KEY (partition_no)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- The relays that are alive, so that each knows its fair share of the partitions.
CREATE TABLE outbox_relays (
    owner VARCHAR(64) CHARACTER SET ascii NOT NULL,
    expires_us BIGINT NOT NULL,
    PRIMARY KEY (owner)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

INSERT INTO outbox_leases (partition_no, owner, epoch, expires_us) VALUES
    (0, '', 0, 0), (1, '', 0, 0), (2, '', 0, 0), (3, '', 0, 0),
    (4, '', 0, 0), (5, '', 0, 0), (6, '', 0, 0), (7, '', 0, 0),
    (8, '', 0, 0), (9, '', 0, 0), (10, '', 0, 0), (11, '', 0, 0),
    (12, '', 0, 0), (13, '', 0, 0), (14, '', 0, 0), (15, '', 0, 0);
