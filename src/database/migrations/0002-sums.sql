-- Sums that metrics ask for at every scrape: kept with each write, since to count a million rows is
-- no answer to a question that comes every few seconds.

ALTER TABLE node ADD COLUMN stores INTEGER NOT NULL DEFAULT 0; -- rows of sync_store

ALTER TABLE node ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0; -- of their values, each counted once

ALTER TABLE node ADD COLUMN garbage INTEGER NOT NULL DEFAULT 0; -- rows of blob_garbage

UPDATE node SET
  stores = (SELECT count(*) FROM sync_store),
  bytes = (SELECT coalesce(sum(size), 0) FROM sync_store),
  garbage = (SELECT count(*) FROM blob_garbage);

CREATE TRIGGER sync_store_added AFTER INSERT ON sync_store
BEGIN
  UPDATE node SET stores = stores + 1, bytes = bytes + NEW.size;
END;

CREATE TRIGGER sync_store_resized AFTER UPDATE OF size ON sync_store WHEN NEW.size <> OLD.size
BEGIN
  UPDATE node SET bytes = bytes + NEW.size - OLD.size;
END;

CREATE TRIGGER sync_store_removed AFTER DELETE ON sync_store
BEGIN
  UPDATE node SET stores = stores - 1, bytes = bytes - OLD.size;
END;

CREATE TRIGGER blob_garbage_added AFTER INSERT ON blob_garbage
BEGIN
  UPDATE node SET garbage = garbage + 1;
END;

CREATE TRIGGER blob_garbage_removed AFTER DELETE ON blob_garbage
BEGIN
  UPDATE node SET garbage = garbage - 1;
END;
