#!lua flags=allow-oom
-- Removes idle consumers without pending entries.
--
-- KEYS: stream
-- ARGV: group, milliseconds
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local removed = 0
for _, facts in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #facts, 2 do consumer[facts[i]] = facts[i + 1] end
  if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    removed = removed + 1
  end
end
return removed
