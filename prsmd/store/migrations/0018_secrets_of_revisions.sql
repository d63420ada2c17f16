-- Which secrets a revision names, as a JSON list, so that whoever looks for a secret's users does not
-- read the whole of each spec.
ALTER TABLE revisions ADD COLUMN secret_names TEXT NOT NULL DEFAULT '[]';
UPDATE revisions SET secret_names = (
    SELECT json_group_array(DISTINCT json_extract(used.value, '$.name'))
    FROM json_each(revisions.spec, '$.secrets') AS used
);
CREATE INDEX revision_secrets ON revisions (deployment_id, number, secret_names);
