-- Who may ask: organizations, their members and own roles, and what a key is held to.

CREATE TABLE organizations (
    id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    created_at REAL NOT NULL,
    created_by TEXT NOT NULL,
    disabled_at REAL,
    removed_at REAL
) STRICT;

-- Until now an organization was only a word in other rows.
INSERT INTO organizations (id, display_name, created_at, created_by)
SELECT known.organization, known.organization, CAST(unixepoch() AS REAL), 'prsmd'
FROM (
    SELECT organization FROM deployments
    UNION SELECT organization FROM api_keys
    UNION SELECT organization FROM images
    UNION SELECT organization FROM registries
    UNION SELECT organization FROM audit
) AS known
WHERE known.organization <> '';

CREATE TABLE roles (
    organization TEXT NOT NULL REFERENCES organizations (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    permissions TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (organization, name)
) STRICT;

CREATE TABLE members (
    id TEXT PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organizations (id),
    kind TEXT NOT NULL CHECK (kind IN ('uid', 'gid', 'oidc', 'key')),
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    created_by TEXT NOT NULL,
    UNIQUE (kind, subject)
) STRICT;

CREATE INDEX members_of_organization ON members (organization, created_at);

-- deployment_id is NULL where the role holds in the whole organization.
CREATE TABLE bindings (
    member_id TEXT NOT NULL REFERENCES members (id) ON DELETE CASCADE,
    place INTEGER NOT NULL CHECK (place >= 0),
    role TEXT NOT NULL,
    deployment_id TEXT REFERENCES deployments (id) ON DELETE CASCADE,
    PRIMARY KEY (member_id, place)
) STRICT;

CREATE INDEX bindings_on_deployment ON bindings (deployment_id);

ALTER TABLE api_keys ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN rotated_at REAL;
ALTER TABLE api_keys ADD COLUMN previous_digest BLOB;
ALTER TABLE api_keys ADD COLUMN previous_until REAL;
ALTER TABLE api_keys ADD COLUMN models TEXT;
ALTER TABLE api_keys ADD COLUMN networks TEXT;
ALTER TABLE api_keys ADD COLUMN requests_per_minute INTEGER CHECK (requests_per_minute >= 1);
ALTER TABLE api_keys ADD COLUMN requests_per_day INTEGER CHECK (requests_per_day >= 1);
ALTER TABLE api_keys ADD COLUMN last_used_at REAL;

CREATE INDEX api_keys_of_organization ON api_keys (organization, created_at);
