-- Who did what to what is looked for in the order of the log, without reading all of it.
CREATE INDEX audit_of_principal ON audit (principal, sequence);
CREATE INDEX audit_of_action ON audit (action, sequence);
CREATE INDEX audit_of_subject ON audit (subject, sequence);
CREATE INDEX denials_of_principal ON denials (principal, sequence);

CREATE INDEX deployments_of_organization ON deployments (organization, created_at, id);
CREATE INDEX deployments_by_age ON deployments (created_at, id);
