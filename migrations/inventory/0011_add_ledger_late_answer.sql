-- What an order that was paid late was answered: COMMITTED, or why not. NULL if it never was paid late, and in rows of
-- before. From then on a repeat of what came before the payment changes nothing, and a repeat of the payment gets the
-- same answer.
ALTER TABLE ledger ADD COLUMN late_answer VARCHAR(16) CHARACTER SET ascii NULL;
