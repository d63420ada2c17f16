-- The organizations' secrets. A value is sealed: bound to its organization, name and version.
-- key_id names the envelope key by which a value was sealed: bytes 2 to 5 of what is sealed say it.

CREATE TABLE secrets (
    organization TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    value BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    textual INTEGER NOT NULL CHECK (textual IN (0, 1)),
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    updated_by TEXT NOT NULL,
    key_id TEXT GENERATED ALWAYS AS (lower(hex(substr(value, 2, 4)))) VIRTUAL,
    PRIMARY KEY (organization, name)
) STRICT;

ALTER TABLE registries ADD COLUMN
    key_id TEXT GENERATED ALWAYS AS (lower(hex(substr(password, 2, 4)))) VIRTUAL;
