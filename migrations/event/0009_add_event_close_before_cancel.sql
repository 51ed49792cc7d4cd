-- When an event had closed that was cancelled after that. NULL in any other, and in one that the version before has
-- cancelled: closed_at_us is when it was cancelled then, and when it closed as long as it is CLOSED.
ALTER TABLE events ADD COLUMN closed_before_cancel_us BIGINT NULL;
