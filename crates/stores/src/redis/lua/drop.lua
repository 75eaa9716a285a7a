#!lua flags=allow-oom
-- Deletes a page of the helper keys of a target whose collection is gone, so that Redis is not blocked for long.
--
-- KEYS: tombstones, their log, their state, audit position, collections, lost; of the plain target also its collection
-- ARGV: target, tombstones per page
-- Returns 1 if there is more, else 0.
local page = tonumber(ARGV[2])
-- The cursor is stored: a scan from the start would visit the buckets that earlier pages have emptied.
local cursor = redis.call('HGET', KEYS[3], 'dropped') or '0'
local more = false
if cursor ~= 'all' then
  local scanned = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', page)
  local fields = {}
  for i = 1, #scanned[2], 2 do fields[#fields + 1] = scanned[2][i] end
  for first = 1, #fields, 1000 do
    redis.call('HDEL', KEYS[1], unpack(fields, first, math.min(first + 999, #fields)))
  end
  redis.call('HSET', KEYS[3], 'dropped', scanned[1] == '0' and 'all' or scanned[1])
  more = scanned[1] ~= '0'
end
local logged = redis.call('XLEN', KEYS[2])
if logged > page then
  redis.call('XTRIM', KEYS[2], 'MAXLEN', string.format('%.0f', logged - page))
  more = true
end
if more then return 1 end
if KEYS[7] then redis.call('DEL', KEYS[7]) end
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
-- The state last: it has the cursor.
redis.call('DEL', KEYS[1], KEYS[2], KEYS[4])
redis.call('DEL', KEYS[3])
return 0
