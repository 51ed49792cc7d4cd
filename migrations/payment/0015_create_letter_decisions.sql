-- Every decision on a dead letter, with who and why: dead_letters has the last one alone, and a letter whose replay
-- has failed is decided on again. Written in the transaction of the decision, never changed, and kept as the letter is.
CREATE TABLE letter_decisions (
    -- In the order in which they were made.
    id BIGINT NOT NULL AUTO_INCREMENT,
    -- The row of dead_letters.
    letter_id BIGINT NOT NULL,
    -- REPLAY or DISCARD.
    act VARCHAR(16) CHARACTER SET ascii NOT NULL,
    decided_by VARCHAR(128) NOT NULL,
    decided_why TEXT NOT NULL,
    decided_us BIGINT NOT NULL,
    PRIMARY KEY (id),
    KEY ix_letter_decisions_letter (letter_id, id),
    CONSTRAINT ck_letter_decisions_act CHECK (act IN ('REPLAY', 'DISCARD'))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
