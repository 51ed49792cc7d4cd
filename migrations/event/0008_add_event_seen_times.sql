-- When others could see that an event had opened and closed: after the commit, by the clock of the database, and so by
-- another clock than the one that decided it. opened_at_us and closed_at_us are from before the commit, which may take
-- long. NULL where it was not noted: by the version before, or by a process that ended in between.
ALTER TABLE events
    ADD COLUMN opened_seen_us BIGINT NULL,
    ADD COLUMN closed_seen_us BIGINT NULL;
