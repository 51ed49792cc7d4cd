-- What has been sent is known by a floor for each partition, in place of a row for each message that has not been. The
-- version before goes on to list what it writes in outbox_unsent, and to read it.

-- An id that no other message has: not even one that is written after the database was restored. NULL in what the
-- version before writes.
ALTER TABLE outbox ADD COLUMN message_id VARCHAR(36) CHARACTER SET ascii NULL;

-- Everything of the partition with this id or a lower one has been sent. `stampede prepare` raises it before a relay goes
-- by it: that needs a lock for which writers may have to wait, and is tried again where it comes to nothing.
ALTER TABLE outbox_leases ADD COLUMN floor_id BIGINT UNSIGNED NOT NULL DEFAULT 0;

-- What is listed there must not keep an old message from being purged.
ALTER TABLE outbox_unsent DROP FOREIGN KEY fk_outbox_unsent_id;
