-- Places of arrival go on from here at least, so that none is given twice after Redis has lost how many there were. NULL
-- before the event was put into Redis for the first time. The same in all items of an event.
ALTER TABLE stock ADD COLUMN arrivals_floor BIGINT NULL;
