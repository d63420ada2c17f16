-- A model is looked for by its id or name in every organization, without reading all deployments.
CREATE INDEX deployments_of_model_id ON deployments (model_id);
CREATE INDEX deployments_of_model_name ON deployments (model_name);
CREATE INDEX api_keys_by_age ON api_keys (created_at, id);
CREATE INDEX shares_of_organization ON shares (organization);
