-- Each audit record carries the hash of the one before it. What is there already is chained by
-- store/chaining.py in the transaction of this migration, which then drops audit_before_chain.

DROP INDEX audit_of_organization;
ALTER TABLE audit RENAME TO audit_before_chain;

CREATE TABLE audit (
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
    size INTEGER NOT NULL CHECK (size > 0)
) STRICT;

CREATE INDEX audit_of_organization ON audit (organization, sequence);
CREATE INDEX audit_by_age ON audit (at);

-- One row: where the chain stands, how many bytes it holds, and, once old records were pruned, the
-- signed statement of where it begins now.
CREATE TABLE audit_chain (
    log TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    hash TEXT NOT NULL,
    size INTEGER NOT NULL,
    anchor TEXT
) STRICT;

INSERT INTO audit_chain VALUES (
    'changes', 0, '0000000000000000000000000000000000000000000000000000000000000000', 0, NULL
);

CREATE TABLE audit_checkpoints (
    sequence INTEGER NOT NULL,
    key TEXT NOT NULL,
    hash TEXT NOT NULL,
    at REAL NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (sequence, key)
) STRICT;
