-- Everything a node keeps, but for values above 16 KiB, which are files that store_file names.
-- Times are milliseconds since the Unix epoch. What must always hold together (quota, feed, garbage)
-- is kept by the triggers at the end, so that no statement of any caller can forget it.

CREATE TABLE node (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  id TEXT NOT NULL,
  schema INTEGER NOT NULL,
  start INTEGER NOT NULL, -- how often the server has started; names the files of this run
  newest INTEGER NOT NULL, -- newest time that was believed: see src/clock.ts
  secret_check TEXT NOT NULL,
  is_clean INTEGER NOT NULL, -- 1 from a clean stop to the next start
  seq INTEGER NOT NULL, -- the last change_seq handed out
  account_number INTEGER NOT NULL -- the last sync_account.number handed out
) STRICT;

CREATE TABLE migration (
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL -- SHA-256 of the file, hex
) STRICT;

CREATE TABLE sync_account (
  id TEXT NOT NULL PRIMARY KEY, -- the handle: ~ + HMAC of the user name or e-mail; random once dead
  number INTEGER NOT NULL UNIQUE, -- what other tables refer to: never reused, though an id can be
  password TEXT NOT NULL, -- Argon2id PHC string; '' until one is set
  key_salt BLOB NOT NULL UNIQUE,
  used INTEGER NOT NULL DEFAULT 0, -- bytes of the stores this account OWNs
  forgotten_seq INTEGER NOT NULL DEFAULT 0, -- tombstones up to here are gone
  disabled INTEGER NOT NULL DEFAULT 0,
  dead INTEGER NOT NULL DEFAULT 0 -- deleted; its rows go in the background
) STRICT;

CREATE INDEX sync_account_dead ON sync_account (number) WHERE dead = 1;

CREATE TABLE sync_session (
  token TEXT NOT NULL PRIMARY KEY, -- SHA-256 of the bearer token, base64url
  id INTEGER NOT NULL REFERENCES sync_account (number),
  expiration INTEGER NOT NULL,
  device TEXT,
  created INTEGER NOT NULL,
  used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sync_session_id ON sync_session (id);

CREATE INDEX sync_session_expiration ON sync_session (expiration);

CREATE TABLE password_reset_token (
  id INTEGER NOT NULL PRIMARY KEY REFERENCES sync_account (number),
  token TEXT NOT NULL UNIQUE, -- SHA-256, base64url
  expiration INTEGER NOT NULL,
  created INTEGER NOT NULL,
  printed INTEGER NOT NULL -- made by the command line: no mail replaces it
) STRICT;

CREATE TABLE invitation (
  token TEXT NOT NULL PRIMARY KEY, -- SHA-256, base64url
  expiration INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE store_data (
  id INTEGER PRIMARY KEY,
  value BLOB NOT NULL
) STRICT;

CREATE TABLE sync_store (
  store_key TEXT NOT NULL PRIMARY KEY CHECK (length(store_key) <= 8000),
  store_file TEXT, -- name under blobs/, for a value above 16 KiB
  store_data INTEGER, -- store_data.id, for any other
  store_token TEXT NOT NULL CHECK (length(store_token) <= 64),
  store_meta TEXT CHECK (length(store_meta) <= 8000),
  size INTEGER NOT NULL,
  digest BLOB NOT NULL, -- SHA-256 of the value
  modified INTEGER NOT NULL,
  CHECK ((store_file IS NULL) <> (store_data IS NULL))
) STRICT;

CREATE UNIQUE INDEX sync_store_file ON sync_store (store_file) WHERE store_file IS NOT NULL;

CREATE TABLE account_permission (
  sync_account_id INTEGER NOT NULL REFERENCES sync_account (number),
  store_key TEXT NOT NULL REFERENCES sync_store (store_key),
  permission TEXT NOT NULL CHECK (permission IN ('READ', 'WRITE', 'OWN')),
  change_seq INTEGER NOT NULL DEFAULT 0, -- where the store stands in this account's feed
  PRIMARY KEY (sync_account_id, store_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX account_permission_store_key ON account_permission (store_key);

-- Whether a store lives is asked for each one that is shown: that may not walk all its members.
CREATE INDEX account_permission_own ON account_permission (store_key, sync_account_id)
WHERE permission = 'OWN';

CREATE INDEX account_permission_change ON account_permission (sync_account_id, change_seq);

-- A store that an account no longer has: its `deleted` in the feed.
CREATE TABLE tombstone (
  sync_account_id INTEGER NOT NULL,
  store_key TEXT NOT NULL,
  change_seq INTEGER NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (sync_account_id, store_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX tombstone_change ON tombstone (sync_account_id, change_seq);

CREATE INDEX tombstone_since ON tombstone (since);

-- Whom an account has granted to before: only new acquaintances are rationed.
CREATE TABLE account_grant (
  sync_account_id INTEGER NOT NULL,
  grantee INTEGER NOT NULL,
  PRIMARY KEY (sync_account_id, grantee)
) STRICT, WITHOUT ROWID;

CREATE INDEX account_grant_grantee ON account_grant (grantee);

CREATE TABLE blob_garbage (
  store_file TEXT NOT NULL PRIMARY KEY,
  since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- While one is live, no file on blob_garbage is removed: a backup is reading.
CREATE TABLE hold (
  id TEXT NOT NULL PRIMARY KEY,
  until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A history: one row a server start. A cursor names the nonce of the range that its position lies in.
CREATE TABLE feed_start (
  first_seq INTEGER PRIMARY KEY,
  nonce INTEGER NOT NULL
) STRICT;

-- INSERT INTO require SELECT <condition>: anything but 1 aborts the whole batch.
CREATE VIEW require AS SELECT 1 AS ok;

CREATE TRIGGER require_ok INSTEAD OF INSERT ON require WHEN NEW.ok IS NOT 1
BEGIN
  SELECT RAISE(ABORT, 'precondition');
END;

-- The permissions that hold: a store lives as long as an account that OWNs it. (Rows of a dead
-- account are never asked for, so its own OWN needs no second look.)
CREATE VIEW held_permission AS
SELECT p.sync_account_id, p.store_key, p.permission, p.change_seq
FROM account_permission p
WHERE p.permission = 'OWN' OR EXISTS (
  SELECT 1 FROM account_permission o JOIN sync_account a ON a.number = o.sync_account_id
  WHERE o.store_key = p.store_key AND o.permission = 'OWN' AND a.dead = 0
);

-- A write: everyone's feed, the OWNs' quota, the superseded file.
CREATE TRIGGER sync_store_written AFTER UPDATE OF store_token ON sync_store
BEGIN
  UPDATE node SET seq = seq + 1;
  UPDATE account_permission SET change_seq = (SELECT seq FROM node) WHERE store_key = NEW.store_key;
  UPDATE sync_account SET used = used + NEW.size - OLD.size
  WHERE NEW.size <> OLD.size AND number IN (
    SELECT sync_account_id FROM account_permission
    WHERE store_key = NEW.store_key AND permission = 'OWN'
  );
  INSERT INTO blob_garbage (store_file, since)
  SELECT OLD.store_file, newest FROM node WHERE OLD.store_file IS NOT NULL;
  DELETE FROM store_data WHERE id = OLD.store_data AND OLD.store_data IS NOT NEW.store_data;
END;

-- Deleting a store takes everyone's permission, which tells their feeds.
CREATE TRIGGER sync_store_deleted BEFORE DELETE ON sync_store
BEGIN
  DELETE FROM account_permission WHERE store_key = OLD.store_key;
  DELETE FROM store_data WHERE id = OLD.store_data;
  INSERT INTO blob_garbage (store_file, since)
  SELECT OLD.store_file, newest FROM node WHERE OLD.store_file IS NOT NULL;
END;

CREATE TRIGGER account_permission_granted AFTER INSERT ON account_permission
BEGIN
  UPDATE node SET seq = seq + 1;
  UPDATE account_permission SET change_seq = (SELECT seq FROM node)
  WHERE sync_account_id = NEW.sync_account_id AND store_key = NEW.store_key;
  DELETE FROM tombstone WHERE sync_account_id = NEW.sync_account_id AND store_key = NEW.store_key;
  UPDATE sync_account
  SET used = used + (SELECT size FROM sync_store WHERE store_key = NEW.store_key)
  WHERE number = NEW.sync_account_id AND NEW.permission = 'OWN';
END;

CREATE TRIGGER account_permission_changed AFTER UPDATE OF permission ON account_permission
WHEN OLD.permission <> NEW.permission
BEGIN
  UPDATE node SET seq = seq + 1;
  UPDATE account_permission SET change_seq = (SELECT seq FROM node)
  WHERE sync_account_id = NEW.sync_account_id AND store_key = NEW.store_key;
  UPDATE sync_account
  SET used = used + ((NEW.permission = 'OWN') - (OLD.permission = 'OWN'))
    * (SELECT size FROM sync_store WHERE store_key = NEW.store_key)
  WHERE number = NEW.sync_account_id;
END;

CREATE TRIGGER account_permission_revoked AFTER DELETE ON account_permission
BEGIN
  UPDATE node SET seq = seq + 1;
  INSERT OR REPLACE INTO tombstone (sync_account_id, store_key, change_seq, since)
  SELECT OLD.sync_account_id, OLD.store_key, node.seq, node.newest
  FROM node, sync_account a WHERE a.number = OLD.sync_account_id AND a.dead = 0;
  UPDATE sync_account
  SET used = used - (SELECT size FROM sync_store WHERE store_key = OLD.store_key)
  WHERE number = OLD.sync_account_id AND OLD.permission = 'OWN';
END;
