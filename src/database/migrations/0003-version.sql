-- Which program served the data last: what to start again after going back from an upgrade.

ALTER TABLE node ADD COLUMN version TEXT; -- NULL until one has served it
