#!lua flags=allow-oom
-- Raises tombstones, never lowering one, and logs each in order of recording for their later collection. Tombstones of
-- namespaces are never collected, only counted. Allowed at maxmemory: deletions have to drain too.
--
-- KEYS: tombstones, their log, their state
-- ARGV: alternating target and version
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
