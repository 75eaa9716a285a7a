#!lua flags=allow-oom
-- Claims entries one by one with XAUTOCLAIM, up to about a number of bytes, and records those that are gone: once they
-- are out of the list of pending entries, nothing else shows that they were never acknowledged.
--
-- KEYS: stream, damage
-- ARGV: group, consumer, milliseconds, start, maximum entries, approximate bytes
-- Returns the next cursor ('0-0' at the end), the entries, and the ids that are gone.
local start, most, bytes = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local entries, gone, held = {}, {}, 0
-- Each step scans at most ten pending entries, so that a page without idle entries ends too.
for _ = 1, most do
  local answer = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], start, 'COUNT', 1)
  start = answer[1]
  for _, entry in ipairs(answer[2]) do
    entries[#entries + 1] = entry
    for i = 2, #entry[2], 2 do held = held + #entry[2][i] end
  end
  for _, id in ipairs(answer[3]) do gone[#gone + 1] = id end
  if start == '0-0' or held >= bytes then break end
end
if #gone > 0 and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SET', KEYS[2], 'entries of ' .. KEYS[1] .. ' were removed before they were acknowledged')
end
return { start, entries, gone }
