-- Who asked, and what they might then: a stored answer is given to nobody who may less by now.

DELETE FROM remembered_answers;
ALTER TABLE remembered_answers ADD COLUMN grounds TEXT NOT NULL DEFAULT '';
