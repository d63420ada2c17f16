-- Which images prsmd brought here, how and for whom; and the organizations' logins to registries.

CREATE TABLE images (
    id TEXT NOT NULL,
    reference TEXT NOT NULL,
    digest TEXT NOT NULL,
    organization TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('pulled', 'loaded')),
    private INTEGER NOT NULL CHECK (private IN (0, 1)),
    by TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (id, reference, organization)
) STRICT;

-- password is sealed: bound to its organization and server.
CREATE TABLE registries (
    organization TEXT NOT NULL,
    server TEXT NOT NULL,
    username TEXT NOT NULL,
    password BLOB NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    updated_by TEXT NOT NULL,
    PRIMARY KEY (organization, server)
) STRICT;
