#!lua flags=allow-oom
-- Changes the catalog of indexes if it has the expected revision. Allowed at maxmemory: a catalog is small, and a
-- change may be what drains Redis.
--
-- KEYS: indexes, installation
-- ARGV: expected revision; next revision; the layout that the keys have from now on ('' for no change); number n of
--       removed indexes; n names; then name and JSON of each changed index; an id of this change
-- The caller chooses the next revision, because the indexes repeat it.
-- Returns 'saved', or 'conflict' if the revision is another one.
local indexes, last = KEYS[1], #ARGV
local known = redis.call('HMGET', indexes, '#revision', '#change')
local revision = known[1] or '0'
-- The reply to an earlier, identical call was lost: its work is done.
if revision == ARGV[2] and known[2] == ARGV[last] then return 'saved' end
if revision ~= ARGV[1] then return 'conflict' end
-- First, so that no release without per-target keys starts to use them.
if ARGV[3] ~= '' then
  local layout = tonumber(redis.call('HGET', KEYS[2], 'format') or 0) or 0
  if layout < tonumber(ARGV[3]) then redis.call('HSET', KEYS[2], 'format', ARGV[3]) end
end
local removed = tonumber(ARGV[4])
for i = 5, 4 + removed do redis.call('HDEL', indexes, ARGV[i]) end
for i = 5 + removed, last - 1, 2 do redis.call('HSET', indexes, ARGV[i], ARGV[i + 1]) end
redis.call('HSET', indexes, '#revision', ARGV[2], '#change', ARGV[last])
return 'saved'
