-- Where a request came from stands in its record, and so in the record's text and hash; records from
-- before have none, and their text stays what it was.
ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT '';

-- What was denied has a log of its own, so that being denied pushes out no record of a change.
CREATE TABLE denials (
    sequence INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    principal TEXT NOT NULL,
    organization TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    outcome TEXT NOT NULL,
    request_id TEXT NOT NULL,
    details TEXT NOT NULL,
    salt TEXT NOT NULL,
    hash TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size > 0),
    address TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX denials_of_organization ON denials (organization, sequence);
CREATE INDEX denials_by_age ON denials (at);

CREATE TABLE denials_chain (
    log TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    hash TEXT NOT NULL,
    size INTEGER NOT NULL,
    anchor TEXT
) STRICT;

INSERT INTO denials_chain VALUES (
    'denials', 0, '0000000000000000000000000000000000000000000000000000000000000000', 0, NULL
);

CREATE TABLE denials_checkpoints (
    sequence INTEGER NOT NULL,
    key TEXT NOT NULL,
    hash TEXT NOT NULL,
    at REAL NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (sequence, key)
) STRICT;
