#!lua flags=allow-oom
-- Registers an installation, replacing any other, unless the keys have a newer layout. Returns the layout found before,
-- which stays.
--
-- KEYS: installation, indexes
-- ARGV: the newest supported layout; layout of new keys, without and with a catalog; name and value of each field
local layout = redis.call('HGET', KEYS[1], 'format')
local number = tonumber(layout or '')
if not number or number <= tonumber(ARGV[1]) then
  local new = redis.call('HGET', KEYS[2], '#revision') and ARGV[3] or ARGV[2]
  redis.call('HSET', KEYS[1], 'format', number and layout or new, unpack(ARGV, 4))
end
return layout
