#!lua flags=allow-oom
-- Stores the collection of a target; records the loss of one that is gone or was replaced by another.
--
-- KEYS: collections, lost
-- ARGV: target, collection, '1' if it exists, else '0'
local target, name, exists = ARGV[1], ARGV[2], ARGV[3] == '1'
local known = redis.call('HGET', KEYS[1], target)
if known and (known ~= name or not exists) then
  local what = known == name and 'is missing' or 'replaced ' .. known
  record_loss(KEYS[2], target, 'collection ' .. name .. ' in Qdrant ' .. what)
end
if not exists then
  if known then redis.call('HDEL', KEYS[1], target) end
elseif known ~= name then
  redis.call('HSET', KEYS[1], target, name)
end
return redis.status_reply('OK')
