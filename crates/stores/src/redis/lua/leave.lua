#!lua flags=allow-oom
-- Removes a consumer from the group if nothing is pending with it: removing it otherwise would discard what is.
--
-- KEYS: stream
-- ARGV: group, consumer
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
