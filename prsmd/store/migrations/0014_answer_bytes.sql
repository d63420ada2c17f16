-- How much an organization's callers have had remembered for their Idempotency-Keys: a sum that is
-- kept, for it is asked with each change.

ALTER TABLE remembered_answers ADD COLUMN organization TEXT NOT NULL DEFAULT '';
UPDATE remembered_answers SET organization = coalesce(json_extract(grounds, '$.organization'), '')
    WHERE grounds <> '';

CREATE TABLE answer_bytes (
    organization TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO answer_bytes
SELECT organization, sum(1024 + length(CAST(body AS BLOB)) + length(CAST(grounds AS BLOB)))
FROM remembered_answers GROUP BY organization;

CREATE TRIGGER answer_remembered AFTER INSERT ON remembered_answers BEGIN
    INSERT INTO answer_bytes VALUES (
        new.organization,
        1024 + length(CAST(new.body AS BLOB)) + length(CAST(new.grounds AS BLOB))
    ) ON CONFLICT (organization) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER answer_forgotten AFTER DELETE ON remembered_answers BEGIN
    UPDATE answer_bytes SET bytes = bytes
        - 1024 - length(CAST(old.body AS BLOB)) - length(CAST(old.grounds AS BLOB))
        WHERE organization = old.organization;
END;
