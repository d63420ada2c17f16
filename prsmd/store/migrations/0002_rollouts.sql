-- Rollouts from one revision to the next, and the answers that a repeated request is given again.

ALTER TABLE deployments ADD COLUMN gradual_level INTEGER CHECK (gradual_level >= 0);
ALTER TABLE deployments ADD COLUMN stable_revision INTEGER CHECK (stable_revision >= 1);
ALTER TABLE revisions ADD COLUMN good_at REAL;
ALTER TABLE revisions ADD COLUMN diff TEXT NOT NULL DEFAULT '[]';

-- What was ready before there were rollouts is what the first update goes back to.
UPDATE revisions SET good_at = (
    SELECT min(replicas.ready_at) FROM replicas
    WHERE replicas.deployment_id = revisions.deployment_id
        AND replicas.revision = revisions.number
);
UPDATE deployments SET stable_revision = (
    SELECT max(revisions.number) FROM revisions
    WHERE revisions.deployment_id = deployments.id AND revisions.good_at IS NOT NULL
);

CREATE TABLE rollouts (
    deployment_id TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 1),
    from_revision INTEGER NOT NULL,
    to_revision INTEGER NOT NULL,
    phase TEXT NOT NULL CHECK (
        phase IN (
            'preparing', 'trying', 'replacing',
            'completed', 'rolled_back', 'aborted', 'superseded'
        )
    ),
    value TEXT NOT NULL,
    PRIMARY KEY (deployment_id, number),
    FOREIGN KEY (deployment_id, from_revision)
        REFERENCES revisions (deployment_id, number) ON DELETE CASCADE,
    FOREIGN KEY (deployment_id, to_revision)
        REFERENCES revisions (deployment_id, number) ON DELETE CASCADE
) STRICT;

CREATE UNIQUE INDEX rollouts_under_way ON rollouts (deployment_id)
    WHERE phase IN ('preparing', 'trying', 'replacing');
CREATE INDEX rollouts_from ON rollouts (deployment_id, from_revision);
CREATE INDEX rollouts_to ON rollouts (deployment_id, to_revision);

CREATE TABLE remembered_answers (
    principal TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT;

CREATE INDEX remembered_answers_by_age ON remembered_answers (created_at);
