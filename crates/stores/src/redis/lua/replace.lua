#!lua flags=allow-oom
-- Registers an installation, replacing any other, unless the keys have a newer layout. Returns the layout found before,
-- which stays.
--
-- KEYS: installation
-- ARGV: the newest supported layout; layout of new keys; name and value of each field
local layout = redis.call('HGET', KEYS[1], 'format')
local number = tonumber(layout or '')
if not number or number <= tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'format', number and layout or ARGV[2], unpack(ARGV, 3))
end
return layout
