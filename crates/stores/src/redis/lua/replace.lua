#!lua flags=allow-oom
-- Registers an installation, replacing any other, unless the keys have a newer layout. Returns the layout found before.
--
-- KEYS: installation
-- ARGV: the newest supported layout; name and value of each field
local layout = redis.call('HGET', KEYS[1], 'format')
if not layout or (tonumber(layout) or 0) <= tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], unpack(ARGV, 2))
end
return layout
