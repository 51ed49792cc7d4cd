-- Whose turn it is to read a list of the provider, so that of several replicas one does. One that dies with its turn
-- loses it in time.
CREATE TABLE provider_turns (
    -- As in provider_cursors.
    list VARCHAR(32) CHARACTER SET ascii NOT NULL,
    -- When the next turn may begin. Whoever sets this has the turn until then, and writes nothing once somebody else
    -- has set it.
    next_us BIGINT NOT NULL,
    PRIMARY KEY (list)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
