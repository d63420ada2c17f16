-- Whose pull or start it was: what others have run here is not told by an estimate.

ALTER TABLE timings ADD COLUMN organization TEXT NOT NULL DEFAULT '';
DROP INDEX timings_of_image;
CREATE INDEX timings_of_image ON timings (organization, image, phase, sequence);
