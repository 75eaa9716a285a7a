#!lua flags=allow-oom
-- Creates the group at the beginning of the stream, and the stream if it is missing. Returns 1 if the group is new.
--
-- KEYS: stream
-- ARGV: group
local created = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if created.err then
  if string.sub(created.err, 1, 9) == 'BUSYGROUP' then return 0 end
  return created
end
return 1
