#!lua flags=allow-oom
-- Stores the name of the plain target's collection; records the loss of one that is gone or was replaced by another: as
-- damage, or as a loss of this target once a catalog is applied.
--
-- KEYS: collection, damage, indexes, lost
-- ARGV: name, '1' if it exists, else '0', target ('' if it has no name)
local known = redis.call('GET', KEYS[1])
local name, exists, target = ARGV[1], ARGV[2] == '1', ARGV[3]
local function record(what)
  local text = 'collection ' .. name .. ' in Qdrant ' .. what
  if target ~= '' and redis.call('HGET', KEYS[3], '#revision') then
    record_loss(KEYS[4], target, text)
  else
    redis.call('SET', KEYS[2], text)
  end
end
if not exists then
  if known then
    record(known == name and 'is missing' or 'replaced ' .. known)
    redis.call('DEL', KEYS[1])
  end
elseif known ~= name then
  if known then record('replaced ' .. known) end
  redis.call('SET', KEYS[1], name)
end
return redis.status_reply('OK')
