-- What organizations lend each other of their models, and what of the limits was set aside.

CREATE TABLE shares (
    id TEXT PRIMARY KEY,
    deployment_id TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    organization TEXT NOT NULL,
    permissions TEXT NOT NULL,
    requests_per_day INTEGER CHECK (requests_per_day >= 1),
    total_requests INTEGER CHECK (total_requests >= 1),
    requests_per_minute INTEGER CHECK (requests_per_minute >= 1),
    concurrent_requests INTEGER CHECK (concurrent_requests >= 1),
    expires_at REAL,
    created_at REAL NOT NULL,
    created_by TEXT NOT NULL,
    updated_at REAL NOT NULL
) STRICT;

CREATE INDEX shares_of_deployment ON shares (deployment_id, created_at);

CREATE TABLE borrowers (
    share_id TEXT NOT NULL REFERENCES shares (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('organization', 'key')),
    name TEXT NOT NULL,
    PRIMARY KEY (share_id, kind, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX borrowers_by_name ON borrowers (kind, name);

-- How many requests are set aside of a limit: what is set aside counts as spent after a crash.
-- An account is a share's id, `/` and its borrower, or an API key. day is in days since the epoch,
-- UTC, and -1 for what is counted for good.
CREATE TABLE leases (
    account TEXT NOT NULL,
    day INTEGER NOT NULL,
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    PRIMARY KEY (account, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX leases_by_day ON leases (day);

-- When accounts may use their limit per minute in full again. Written by a clean stop.
CREATE TABLE paces (
    account TEXT PRIMARY KEY,
    full_at REAL NOT NULL
) STRICT;
