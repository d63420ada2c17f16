-- Somebody may belong to several organizations. A membership counts once who is meant accepted it;
-- those that were made before this step were made under the older rules and stay in force.

CREATE TABLE members_of_several (
    id TEXT PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organizations (id),
    kind TEXT NOT NULL CHECK (kind IN ('uid', 'gid', 'oidc', 'key')),
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    created_by TEXT NOT NULL,
    accepted_at REAL,
    expires_at REAL,
    UNIQUE (kind, subject, organization)
) STRICT;

INSERT INTO members_of_several
SELECT id, organization, kind, subject, name, created_at, created_by, created_at, NULL
FROM members;

CREATE TABLE bindings_of_several (
    member_id TEXT NOT NULL REFERENCES members_of_several (id) ON DELETE CASCADE,
    place INTEGER NOT NULL CHECK (place >= 0),
    role TEXT NOT NULL,
    deployment_id TEXT REFERENCES deployments (id) ON DELETE CASCADE,
    PRIMARY KEY (member_id, place)
) STRICT;

INSERT INTO bindings_of_several SELECT member_id, place, role, deployment_id FROM bindings;

-- Bindings first: a table that goes takes along what hangs on its rows.
DROP TABLE bindings;
DROP TABLE members;
ALTER TABLE members_of_several RENAME TO members;
ALTER TABLE bindings_of_several RENAME TO bindings;

CREATE INDEX members_of_organization ON members (organization, created_at);
CREATE INDEX bindings_on_deployment ON bindings (deployment_id);
