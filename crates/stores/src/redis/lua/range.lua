#!lua flags=no-writes
-- Reads entries of a stream after an id, oldest first, up to about a number of bytes.
--
-- KEYS: stream
-- ARGV: id, maximum entries, approximate bytes
local after, most, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local entries, held = {}, 0
while #entries < most and held < bytes do
  local entry = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 1)[1]
  if not entry then break end
  entries[#entries + 1] = entry
  after = entry[1]
  for i = 2, #entry[2], 2 do held = held + #entry[2][i] end
end
return entries
