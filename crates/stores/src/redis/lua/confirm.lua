#!lua flags=allow-oom
-- Saves the applied checkpoint, if the checkpoint is the expected one.
--
-- KEYS: checkpoint, applied checkpoint
-- ARGV: number n of fields; n names; n expected values; n applied values
-- Returns 'saved' or 'conflict'.
local count = tonumber(ARGV[1])
local current = redis.call('HMGET', KEYS[1], unpack(ARGV, 2, 1 + count))
for i = 1, count do
  if (current[i] or '') ~= ARGV[1 + count + i] then return 'conflict' end
end
local fields = {}
for i = 1, count do
  fields[2 * i - 1] = ARGV[1 + i]
  fields[2 * i] = ARGV[1 + 2 * count + i]
end
redis.call('HSET', KEYS[2], unpack(fields))
return 'saved'
