#!lua flags=allow-oom
-- Bounds a read of new entries in bytes. COUNT alone does not: 256 entries of 5 MB exceed a service's memory.
--
-- KEYS: stream, counts
-- ARGV: group, consumer, maximum entries, approximate bytes, the stream's field in counts
-- Creates a missing group at the stream's beginning. Returns the COUNT for XREADGROUP that fits the largest unread
-- entry; or, where large entries are unread, the entries themselves, read one by one.
local stream, group, most, bytes = KEYS[1], ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local delivered
if redis.call('EXISTS', stream) == 1 then
  local facts = group_of(stream, group)
  delivered = facts and facts['last-delivered-id']
end
if not delivered then
  redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  delivered = '0-0'
end

-- Whether an entry larger than this may be unread. A missing record means that an older release appended the entries.
local function unread(size)
  local id = redis.call('HGET', KEYS[2], ARGV[5] .. '_over_' .. size)
  return not id or before(delivered, id)
end
for _, size in ipairs({ 8192, 32768, 131072 }) do
  if not unread(size) then return math.max(1, math.min(most, math.floor(bytes / size))) end
end

local entries, held = {}, 0
while #entries < most and held < bytes do
  local answer = redis.call('XREADGROUP', 'GROUP', group, ARGV[2], 'COUNT', 1, 'STREAMS', stream, '>')
  if not answer then break end
  local entry = answer[1][2][1]
  entries[#entries + 1] = entry
  for i = 2, #entry[2], 2 do held = held + #entry[2][i] end
end
return entries
