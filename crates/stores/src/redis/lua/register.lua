#!lua flags=allow-oom
-- Registers an installation unless one is registered or the keys have a newer layout. The layout stays as it is: the
-- catalog may have raised it while the registration was missing. Returns the layout and the registered values.
--
-- KEYS: installation, indexes
-- ARGV: the newest supported layout; layout of new keys, without and with a catalog; name and value of each field
local layout = redis.call('HGET', KEYS[1], 'format')
local usable = (tonumber(layout or '') or 0) <= tonumber(ARGV[1])
if usable and redis.call('HLEN', KEYS[1]) == (layout and 1 or 0) then
  local new = redis.call('HGET', KEYS[2], '#revision') and ARGV[3] or ARGV[2]
  redis.call('HSET', KEYS[1], 'format', layout or new, unpack(ARGV, 4))
end
local names = { 'format' }
for at = 4, #ARGV, 2 do names[#names + 1] = ARGV[at] end
return redis.call('HMGET', KEYS[1], unpack(names))
