-- What containers, the engine and registries say is stored within bounds. What was stored before that
-- is cut here; the values that are JSON are cut by the code that writes them.

UPDATE events SET message = substr(message, 1, 1023) || '…' WHERE length(message) > 1024;
