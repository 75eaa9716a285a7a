#!lua flags=allow-oom
-- Raises tombstones, never lowering one, and logs each in order of recording for their later collection. Tombstones of
-- namespaces are never collected, only counted. Allowed at maxmemory: deletions have to drain too.
--
-- KEYS: tombstones, their log, their state
-- ARGV: alternating target and version; a version is four or five integers below 2^32 separated by dots
local function newer(a, b)
  local left, right = string.gmatch(a, '%d+'), string.gmatch(b, '%d+')
  for _ = 1, 5 do
    local x, y = tonumber(left() or 0), tonumber(right() or 0)
    if x ~= y then return x > y end
  end
  return false
end
for i = 1, #ARGV, 2 do
  local target, version = ARGV[i], ARGV[i + 1]
  local known = redis.call('HGET', KEYS[1], target)
  if not known or newer(version, known) then
    redis.call('HSET', KEYS[1], target, version)
    if string.sub(target, 1, 3) ~= 'ns:' then
      redis.call('XADD', KEYS[2], '*', 'target', target, 'version', version)
    elseif not known then
      redis.call('HINCRBY', KEYS[3], 'namespaces', 1)
    end
  end
end
return redis.status_reply('OK')
