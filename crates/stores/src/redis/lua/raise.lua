#!lua flags=allow-oom
-- Remembers versions, never lowering one. Allowed when memory is full: deletions have to drain too.
--
-- KEYS: tombstones
-- ARGV: target and version by turns; a version is four or five whole numbers below 2^32 separated by dots
local function newer(a, b)
  local left, right = string.gmatch(a, '%d+'), string.gmatch(b, '%d+')
  for _ = 1, 5 do
    local x, y = tonumber(left() or 0), tonumber(right() or 0)
    if x ~= y then return x > y end
  end
  return false
end
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if not known or newer(ARGV[i + 1], known) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return redis.status_reply('OK')
