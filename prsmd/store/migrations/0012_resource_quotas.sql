-- What organizations may have at most. `hard` NULL is unlimited. A dimension without a row in either
-- table is unlimited too.

-- As the settings say; written anew at each start.
CREATE TABLE default_quotas (
    dimension TEXT PRIMARY KEY,
    hard INTEGER CHECK (hard >= 0)
) STRICT, WITHOUT ROWID;

-- As administrators set them for one organization, in place of the default.
CREATE TABLE organization_quotas (
    organization TEXT NOT NULL REFERENCES organizations (id),
    dimension TEXT NOT NULL,
    hard INTEGER CHECK (hard >= 0),
    PRIMARY KEY (organization, dimension)
) STRICT, WITHOUT ROWID;

-- What a revision's replicas need, so that sums do not read the whole of each spec.
ALTER TABLE revisions ADD COLUMN cpu_millis INTEGER NOT NULL DEFAULT 0;
ALTER TABLE revisions ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE revisions ADD COLUMN gpu_millis INTEGER NOT NULL DEFAULT 0;
ALTER TABLE revisions ADD COLUMN min_replicas INTEGER NOT NULL DEFAULT 0;
ALTER TABLE revisions ADD COLUMN max_replicas INTEGER NOT NULL DEFAULT 0;
UPDATE revisions SET
    cpu_millis = coalesce(json_extract(spec, '$.resources.cpu_millis'), 0),
    memory_bytes = coalesce(json_extract(spec, '$.resources.memory_bytes'), 0),
    gpu_millis = coalesce(json_extract(spec, '$.resources.gpu_millis'), 0),
    min_replicas = coalesce(json_extract(spec, '$.scaling.min_replicas'), 1),
    max_replicas = coalesce(json_extract(spec, '$.scaling.max_replicas'), 10);
CREATE INDEX revision_needs ON revisions
    (deployment_id, number, cpu_millis, memory_bytes, gpu_millis, min_replicas, max_replicas);

CREATE INDEX replicas_active ON replicas (organization)
    WHERE state NOT IN ('stopped', 'failed');

-- How large an image is whose bytes count for who brought it. 0 is not known yet.
ALTER TABLE images ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0 CHECK (size_bytes >= 0);
