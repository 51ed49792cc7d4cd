-- What a walk through the orders of a cancelled event has to know when one of them begins again meanwhile: it goes on to
-- its end, and is followed by another one at once.
ALTER TABLE cancelled_events
    -- How long a walk under way has the orders for itself: as next_walk_us, if there is one. A replica of the release before
    -- changes next_walk_us alone, and so takes the walk.
    ADD COLUMN walked_until_us BIGINT NULL,
    -- Whether something has begun again since the last walk began.
    ADD COLUMN is_reopened BOOLEAN NOT NULL DEFAULT FALSE;
