#!lua flags=allow-oom
-- Acquires or extends the lease. Returns 1 if the owner holds it now.
--
-- KEYS: lease
-- ARGV: owner, time to live in milliseconds
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
