#!lua flags=allow-oom
-- Registers an installation unless one is registered or the keys have a newer layout. The layout stays as it is: the
-- catalog may have raised it while the registration was missing. Returns the layout and the registered values.
--
-- KEYS: installation
-- ARGV: the newest supported layout; layout of new keys; name and value of each field
local layout = redis.call('HGET', KEYS[1], 'format')
local usable = (tonumber(layout or '') or 0) <= tonumber(ARGV[1])
if usable and redis.call('HLEN', KEYS[1]) == (layout and 1 or 0) then
  redis.call('HSET', KEYS[1], 'format', layout or ARGV[2], unpack(ARGV, 3))
end
local names = { 'format' }
for at = 3, #ARGV, 2 do names[#names + 1] = ARGV[at] end
return redis.call('HMGET', KEYS[1], unpack(names))
