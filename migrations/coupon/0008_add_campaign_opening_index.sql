-- The sweeps look at campaigns that have opened, or open soon, and not at all that are planned.
ALTER TABLE campaigns
    ADD KEY ix_campaigns_opening (settled_us, opens_at_us, id);
