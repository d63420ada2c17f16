-- Who used which model how much on which day (days since the epoch, UTC).

CREATE TABLE usage (
    day INTEGER NOT NULL,
    deployment_id TEXT NOT NULL,
    organization TEXT NOT NULL,
    principal TEXT NOT NULL,
    owner TEXT NOT NULL,
    model_id TEXT NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    seconds REAL NOT NULL,
    request_bytes INTEGER NOT NULL,
    answer_bytes INTEGER NOT NULL,
    PRIMARY KEY (deployment_id, day, organization, principal)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_of_organization ON usage (organization, day);
