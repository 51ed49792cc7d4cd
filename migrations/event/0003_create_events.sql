-- Sale events. Times are microseconds since the Unix epoch, UTC.
CREATE TABLE events (
    -- Derived from the caller and the request id, so a repeated request meets its first row here.
    id BINARY(16) NOT NULL,
    creator_id BINARY(16) NOT NULL,
    request_id VARCHAR(64) CHARACTER SET ascii NOT NULL,
    -- SHA-256 of the request, to tell a repeat from another request under the same id.
    request_fingerprint BINARY(32) NOT NULL,
    name VARCHAR(200) NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii NOT NULL,
    opens_at_us BIGINT NOT NULL,
    closes_at_us BIGINT NOT NULL,
    opened_at_us BIGINT NULL,
    -- When it closed or was cancelled.
    closed_at_us BIGINT NULL,
    -- When time next changes the state; NULL once it never will.
    due_at_us BIGINT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (id),
    KEY ix_events_due (due_at_us),
    KEY ix_events_created (created_us, id),
    CONSTRAINT ck_events_times CHECK (closes_at_us > opens_at_us),
    CONSTRAINT ck_events_state CHECK (
        (state = 'SCHEDULED' AND opened_at_us IS NULL AND closed_at_us IS NULL
            AND due_at_us IS NOT NULL AND due_at_us = opens_at_us)
        OR (state = 'OPEN' AND opened_at_us IS NOT NULL AND closed_at_us IS NULL
            AND due_at_us IS NOT NULL AND due_at_us = closes_at_us)
        OR (state = 'CLOSED' AND opened_at_us IS NOT NULL AND closed_at_us IS NOT NULL AND due_at_us IS NULL)
        OR (state = 'CANCELLED' AND closed_at_us IS NOT NULL AND due_at_us IS NULL)
    ),
    CONSTRAINT ck_events_never_early CHECK (opened_at_us IS NULL OR opened_at_us >= opens_at_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
