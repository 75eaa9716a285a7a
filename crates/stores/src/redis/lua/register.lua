#!lua flags=allow-oom
-- Registers an installation unless one is registered. Returns the values of the registered one.
--
-- KEYS: installation
-- ARGV: name and value of each field
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
local names = {}
for at = 1, #ARGV, 2 do names[#names + 1] = ARGV[at] end
return redis.call('HMGET', KEYS[1], unpack(names))
