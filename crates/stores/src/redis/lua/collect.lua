#!lua flags=allow-oom
-- Collects a page of document tombstones, oldest first by recording time. Collects nothing while retried dead letters
-- may be in flight: one of them could restore a deleted document.
--
-- KEYS: tombstones, their log, their state, retried
-- ARGV: milliseconds for which a tombstone is kept; a time in milliseconds before which everything in the streams has
--       been acknowledged; tombstones per page
-- Returns how many were collected, and 1 if there may be more. The state keeps the newest collected version: for older
-- changes it is no longer known whether a deletion followed.
local settled, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local retried = redis.call('GET', KEYS[4])
-- Older releases do not record the time.
if retried and (retried == '1' or tonumber(retried) >= settled) then return { 0, 0 } end

-- Tombstones written by an older release are not in the log. They count as recorded now.
local state = redis.call('HMGET', KEYS[3], 'cursor', 'namespaces')
local cursor = state[1]
if not cursor and redis.call('HLEN', KEYS[1]) - tonumber(state[2] or 0) > redis.call('XLEN', KEYS[2]) then
  redis.call('HSET', KEYS[3], 'counted', 0)
  cursor = '0'
end
if cursor then
  local page, namespaces = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', most), 0
  for i = 1, #page[2], 2 do
    if string.sub(page[2][i], 1, 3) == 'ns:' then
      namespaces = namespaces + 1
    else
      redis.call('XADD', KEYS[2], '*', 'target', page[2][i], 'version', page[2][i + 1])
    end
  end
  local counted = redis.call('HINCRBY', KEYS[3], 'counted', namespaces)
  if page[1] == '0' then
    redis.call('HSET', KEYS[3], 'namespaces', counted)
    redis.call('HDEL', KEYS[3], 'cursor', 'counted')
  else
    redis.call('HSET', KEYS[3], 'cursor', page[1])
  end
  return { 0, 1 }
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = math.min(now - tonumber(ARGV[1]), settled) - 1
if last < 0 then return { 0, 0 } end
local page = redis.call('XRANGE', KEYS[2], '-', string.format('%.0f', last), 'COUNT', most)
if #page == 0 then return { 0, 0 } end
local forgotten, newest = 0, redis.call('HGET', KEYS[3], 'forgotten') or ''
for _, entry in ipairs(page) do
  local target, version = entry[2][2], entry[2][4]
  -- A newer deletion of the document has its own entry.
  if redis.call('HGET', KEYS[1], target) == version then
    forgotten = forgotten + redis.call('HDEL', KEYS[1], target)
    if newer(version, newest) then newest = version end
  end
end
if forgotten > 0 then redis.call('HSET', KEYS[3], 'forgotten', newest) end
local ms, seq = string.match(page[#page][1], '^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[2], 'MINID', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
return { forgotten, #page == most and 1 or 0 }
