-- What was inferred: the same chained log as in the control state, of its own.

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

CREATE TABLE audit_chain (
    log TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    hash TEXT NOT NULL,
    size INTEGER NOT NULL,
    anchor TEXT
) STRICT;

INSERT INTO audit_chain VALUES (
    'inferences', 0, '0000000000000000000000000000000000000000000000000000000000000000', 0, NULL
);

CREATE TABLE audit_checkpoints (
    sequence INTEGER NOT NULL,
    key TEXT NOT NULL,
    hash TEXT NOT NULL,
    at REAL NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (sequence, key)
) STRICT;
