#!lua flags=allow-oom
-- Deletes the record of a loss, unless a newer loss has replaced it.
--
-- KEYS: lost
-- ARGV: target, the recorded text
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
