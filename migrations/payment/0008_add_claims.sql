-- Names the claim that a row was leased by. An UPDATE that states what it expects sets it, and the rows that have it
-- afterwards are the claim: so no row is two claims, wherever the read before it locked nothing. NULL before the first
-- claim, and after one by a replica that does not know the column, which needs nobody to read it.
ALTER TABLE attempts ADD COLUMN claim BINARY(16) NULL;
ALTER TABLE refunds ADD COLUMN claim BINARY(16) NULL;
