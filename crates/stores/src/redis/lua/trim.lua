#!lua flags=allow-oom
-- Removes entries that every group has acknowledged and that the retention does not cover, at most about `ARGV[4]` of
-- them, and reads about 8 MiB of them, so that Redis is not blocked for long. Returns their number, and whether there
-- may be more.
--
-- KEYS: stream, counts
-- ARGV: age to keep in milliseconds, entries to keep, bytes to keep, maximum to remove per call, the stream's field in
--       counts
local stream = KEYS[1]
local keep_age, keep_entries, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
if redis.call('EXISTS', stream) == 0 then return { 0, 0 } end

-- Ids as pairs, for arithmetic.
local function pair(id) return { parse(id) } end
local function precedes(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end
local function text(id) return string.format('%.0f-%.0f', id[1], id[2]) end

-- The first id that some group has not read or not acknowledged. Without a group nothing is acknowledged.
local floor
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = named(facts)
  local abandoned = false
  -- An abandoned replay must not retain entries forever.
  if string.sub(group.name, -7) == ':replay' then
    local idle = 3600000
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group.name)) do
      idle = math.min(idle, named(consumer).idle)
    end
    abandoned = idle >= 3600000 and group.consumers > 0
    if abandoned then redis.call('XGROUP', 'DESTROY', stream, group.name) end
  end
  local first
  if not abandoned and group.pending > 0 then
    first = pair(redis.call('XPENDING', stream, group.name)[2])
  else
    first = pair(group['last-delivered-id'])
    first[2] = first[2] + 1
  end
  if not abandoned and (not floor or precedes(first, floor)) then floor = first end
end
if not floor then return { 0, 0 } end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- Entries retained for replays are trimmed before the producer's appends fail.
local memory = redis.call('INFO', 'memory')
local most = tonumber(string.match(memory, 'maxmemory:(%d+)') or 0)
if most > 0 and tonumber(string.match(memory, 'used_memory:(%d+)')) > 0.75 * most then keep_age, keep_entries = 0, 0 end
local old = { math.max(0, now - keep_age), 0 }
if precedes(floor, old) then old = floor end
-- Whole nodes first, because only that form supports LIMIT. Once no whole node is left, the rest is less than a node.
local function trimmed(count)
  if count > 0 then redis.call('HINCRBY', KEYS[2], ARGV[5], count) end
  return count
end
local removed = trimmed(redis.call('XTRIM', stream, 'MINID', '~', text(old), 'LIMIT', limit))
if removed > 0 then return { removed, 1 } end
removed = trimmed(redis.call('XTRIM', stream, 'MINID', text(old)))

local length = redis.call('XLEN', stream)
-- Converts the memory limit to entries of average size.
local bytes = redis.call('MEMORY', 'USAGE', stream) or 0
if length > 0 and bytes > tonumber(ARGV[3]) then
  keep_entries = math.min(keep_entries, math.floor(tonumber(ARGV[3]) * length / bytes))
end
local held = 0
while removed < limit and held < 8388608 do
  local excess = length - keep_entries
  if excess <= 0 then return { removed, 0 } end
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not first then return { removed, 0 } end
  for i = 2, #first[2], 2 do held = held + #first[2][i] end
  first = pair(first[1])
  if not precedes(first, floor) then return { removed, 0 } end
  -- Within one millisecond sequence numbers rise by one at least, so at most `excess` entries are below this id.
  local cut = { first[1], first[2] + math.min(excess, limit - removed) }
  if precedes(floor, cut) then cut = floor end
  local count = trimmed(redis.call('XTRIM', stream, 'MINID', text(cut)))
  removed, length = removed + count, length - count
end
return { removed, 1 }
