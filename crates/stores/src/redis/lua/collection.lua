#!lua flags=allow-oom
-- Stores the name of the collection in use; records damage if it is gone or was replaced by another.
--
-- KEYS: collection, damage
-- ARGV: name, '1' if it exists, else '0'
local known = redis.call('GET', KEYS[1])
local name, exists = ARGV[1], ARGV[2] == '1'
if not exists then
  if known then
    local what = known == name and ' in Qdrant is missing' or ' in Qdrant replaced ' .. known
    redis.call('SET', KEYS[2], 'collection ' .. name .. what)
    redis.call('DEL', KEYS[1])
  end
elseif known ~= name then
  if known then redis.call('SET', KEYS[2], 'collection ' .. name .. ' in Qdrant replaced ' .. known) end
  redis.call('SET', KEYS[1], name)
end
return redis.status_reply('OK')
