-- The control state: what is desired, what was run for it, what happened, and who may ask.
-- Columns that hold JSON have no json_valid() check: SQLite 3.40 refuses it under trusted_schema.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    organization TEXT NOT NULL,
    model_id TEXT NOT NULL,
    model_name TEXT NOT NULL,
    revision INTEGER NOT NULL CHECK (revision >= 1),
    asked_replicas INTEGER NOT NULL CHECK (asked_replicas >= 0),
    scaling_strategy TEXT NOT NULL CHECK (scaling_strategy IN ('immediate', 'gradual')),
    recommendation TEXT,
    deleting INTEGER NOT NULL CHECK (deleting IN (0, 1)),
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (organization, model_name),
    UNIQUE (organization, model_id)
) STRICT;

CREATE TABLE revisions (
    deployment_id TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number >= 1),
    spec TEXT NOT NULL,
    spec_hash TEXT NOT NULL,
    image_digest TEXT,
    created_at REAL NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (deployment_id, number)
) STRICT;

CREATE TABLE replicas (
    id TEXT PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    organization TEXT NOT NULL,
    revision INTEGER NOT NULL,
    slot INTEGER NOT NULL CHECK (slot >= 0),
    state TEXT NOT NULL CHECK (
        state IN ('pending', 'starting', 'running', 'draining', 'stopped', 'failed')
    ),
    placement TEXT NOT NULL,
    container_id TEXT,
    endpoint_host TEXT,
    endpoint_port INTEGER CHECK (endpoint_port BETWEEN 1 AND 65535),
    created_at REAL NOT NULL,
    started_at REAL,
    ready_at REAL,
    draining_since REAL,
    finished_at REAL,
    exit TEXT,
    CHECK ((endpoint_host IS NULL) = (endpoint_port IS NULL)),
    FOREIGN KEY (deployment_id, revision)
        REFERENCES revisions (deployment_id, number) ON DELETE CASCADE
) STRICT;

CREATE INDEX replicas_by_slot ON replicas (deployment_id, slot, created_at);
CREATE INDEX replicas_of_revision ON replicas (deployment_id, revision);

CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    deployment_id TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    organization TEXT NOT NULL,
    replica_id TEXT,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('normal', 'warning')),
    at REAL NOT NULL
) STRICT;

CREATE INDEX events_of_deployment ON events (deployment_id, sequence);

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    principal TEXT NOT NULL,
    organization TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    outcome TEXT NOT NULL,
    request_id TEXT NOT NULL,
    details TEXT NOT NULL
) STRICT;

CREATE INDEX audit_of_organization ON audit (organization, sequence);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    organization TEXT NOT NULL,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL
) STRICT;

CREATE TABLE timings (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    image TEXT NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('pull', 'start')),
    seconds REAL NOT NULL CHECK (seconds >= 0),
    at REAL NOT NULL
) STRICT;

CREATE INDEX timings_of_image ON timings (image, phase, sequence);
CREATE INDEX timings_of_phase ON timings (phase, sequence);
