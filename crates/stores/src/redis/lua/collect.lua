#!lua flags=allow-oom
-- Forgets deletions of documents before a version, a part of them at a time; those of whole namespaces stay. Forgets nothing
-- while there are dead letters, or some were put back into their stage not long ago: one of them could bring back what was
-- deleted.
--
-- KEYS: tombstones, dead letters of stage 1, dead letters of stage 2, retried
-- ARGV: version, cursor ('0' at first)
-- Answers the next cursor ('0' at the end) and how many were forgotten.
if redis.call('XLEN', KEYS[2]) + redis.call('XLEN', KEYS[3]) + redis.call('EXISTS', KEYS[4]) > 0 then return { '0', 0 } end
local function older(a, b)
  local left, right = string.gmatch(a, '%d+'), string.gmatch(b, '%d+')
  for _ = 1, 5 do
    local x, y = tonumber(left() or 0), tonumber(right() or 0)
    if x ~= y then return x < y end
  end
  return false
end
local page = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', 1000)
local forgotten = 0
for i = 1, #page[2], 2 do
  local target, version = page[2][i], page[2][i + 1]
  if string.sub(target, 1, 3) ~= 'ns:' and older(version, ARGV[1]) then
    forgotten = forgotten + redis.call('HDEL', KEYS[1], target)
  end
end
return { page[1], forgotten }
