-- Messages that cannot be applied, and the later ones of their keys, until an operator decides on them. A letter is
-- written in one transaction with the park of its key. What Kafka has of them is a copy for whoever watches.
CREATE TABLE dead_letters (
    -- In the order in which they were set aside, which is that of the messages of a key.
    id BIGINT NOT NULL AUTO_INCREMENT,
    -- The service that could not apply it.
    consumer VARCHAR(32) CHARACTER SET ascii NOT NULL,
    -- Place of the record.
    topic VARCHAR(128) CHARACTER SET ascii NOT NULL,
    partition_no INT NOT NULL,
    record_offset BIGINT NOT NULL,
    -- The aggregate that it is about; empty for an UNREADABLE one.
    message_key VARCHAR(64) CHARACTER SET ascii NOT NULL,
    -- The key of an UNREADABLE record as it came.
    record_key MEDIUMBLOB NULL,
    -- CloudEvents source, id and type; for an UNREADABLE one empty, but the id, which is a hash of the record.
    source VARCHAR(64) CHARACTER SET ascii NOT NULL,
    message_id VARCHAR(64) CHARACTER SET ascii NOT NULL,
    message_type VARCHAR(128) CHARACTER SET ascii NOT NULL,
    -- Every header as it came, in JSON: [{"key": "ce_id", "text": "17"}, {"key": "x", "hex": "ff"}, {"key": "no value"}].
    headers MEDIUMTEXT NOT NULL,
    -- Empty where the record had none.
    payload MEDIUMBLOB NOT NULL,
    -- POISON could not be applied, PARKED came behind a letter of its key, UNREADABLE is no message of ours.
    kind VARCHAR(16) CHARACTER SET ascii NOT NULL,
    reason TEXT NOT NULL,
    set_aside_us BIGINT NOT NULL,
    -- When Kafka took the copy.
    copied_us BIGINT NULL,
    -- WAITING for a decision; REPLAY was decided and is under way; REPLAYED and DISCARDED are done with.
    state VARCHAR(16) CHARACTER SET ascii NOT NULL DEFAULT 'WAITING',
    -- How often it was replayed, and why the last time failed.
    attempts INT NOT NULL DEFAULT 0,
    last_error TEXT NULL,
    decided_by VARCHAR(128) NULL,
    decided_why TEXT NULL,
    decided_us BIGINT NULL,
    PRIMARY KEY (id),
    -- One letter a record. The id tells it from the record at the same place of a topic that was made anew.
    UNIQUE KEY uq_dead_letters_record (topic, partition_no, record_offset, source, message_id),
    KEY ix_dead_letters_state (state, topic, message_key),
    KEY ix_dead_letters_key (topic, message_key, id),
    KEY ix_dead_letters_copied (copied_us, id),
    CONSTRAINT ck_dead_letters_kind CHECK (kind IN ('POISON', 'PARKED', 'UNREADABLE')),
    CONSTRAINT ck_dead_letters_state CHECK (state IN ('WAITING', 'REPLAY', 'REPLAYED', 'DISCARDED'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
