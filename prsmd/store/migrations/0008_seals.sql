-- Each sealed value has a name of its own, bound into its seal: what was sealed for a former secret
-- or login of the same name does not open in the place of the present one. Values from before have
-- none until they are set again.

ALTER TABLE secrets ADD COLUMN seal_id TEXT NOT NULL DEFAULT '';
ALTER TABLE registries ADD COLUMN seal_id TEXT NOT NULL DEFAULT '';
