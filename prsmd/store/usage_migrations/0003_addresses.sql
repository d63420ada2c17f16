-- Where an inference was asked for from; records from before have none.
ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT '';
