#!lua flags=allow-oom
-- Atomically appends entries to stage 2, records the targets whose records were left out, and acknowledges entries of
-- stage 1; does nothing if none of these is pending. Allowed at maxmemory: otherwise a full stage 1 could never drain.
--
-- KEYS: stage 1, stage 2, counts, lost
-- ARGV: group of stage 1; bytes of the largest entry; number n of ids; n ids; number g of gaps; target and reason of
--       each; then for each entry the count of its names and values, followed by these.
local group, largest, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
-- If none is pending, another consumer has finished the work, or the stream is gone and its entries will be appended
-- again: these records may be outdated.
if count > 0 and not any_pending(KEYS[1], group, 4, 3 + count) then return redis.status_reply('OK') end
local at = 5 + count
for _ = 1, tonumber(ARGV[4 + count]) do
  record_loss(KEYS[4], ARGV[at], ARGV[at + 1])
  at = at + 2
end
local added, last = 0, nil
while at <= #ARGV do
  local values = tonumber(ARGV[at])
  last = redis.call('XADD', KEYS[2], '*', unpack(ARGV, at + 1, at + values))
  at, added = at + 1 + values, added + 1
end
count_appended(KEYS[3], 'embedded', added, last, largest)
-- In slices, because unpack puts all its values on Lua's stack, which holds about 8,000.
for first = 4, 3 + count, 1000 do
  redis.call('XACK', KEYS[1], group, unpack(ARGV, first, math.min(first + 999, 3 + count)))
end
return redis.status_reply('OK')
