#!lua flags=no-writes
-- Returns the status of a stream and one of its groups, at one moment.
--
-- KEYS: stream, dead letters, counts
-- ARGV: group; the stream's field in counts; the last delivered id and the first unread id of an earlier call: while
--       the group does not advance, the entry, which may be large, is not read again. '*' if that id is not wanted.
-- Returns: length, dead letters, now in milliseconds, whether the group exists, entries pending, lag (-1 if unknown),
-- first unacknowledged id ('' if none), newest id ('' if none), entries ever appended, last delivered id, first unread
-- id ('' if none or not wanted), then for each consumer its name, entries pending, idle milliseconds.
local stream, wanted, name = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local answer = { redis.call('XLEN', stream), redis.call('XLEN', KEYS[2]), now, 0, 0, -1, '', '', 0, '', '' }
if redis.call('EXISTS', stream) == 0 then return answer end

local counts = redis.call('HMGET', KEYS[3], name, name .. '_last')
if not (counts[1] and counts[2]) then
  -- An older release has appended all entries so far.
  local info = named(redis.call('XINFO', 'STREAM', stream))
  counts = { info['entries-added'], info['last-generated-id'] }
end
answer[8], answer[9] = answer[1] > 0 and counts[2] or '', tonumber(counts[1])
local group = group_of(stream, wanted)
local delivered = group and group['last-delivered-id'] or '0-0'
answer[10] = delivered
local function first_unread()
  if ARGV[3] == '*' then return '' end
  if ARGV[3] == delivered and ARGV[4] ~= '' then return ARGV[4] end
  local entry = redis.call('XRANGE', stream, '(' .. delivered, '+', 'COUNT', 1)[1]
  return entry and entry[1] or ''
end
if not group then
  answer[11] = answer[1] > 0 and first_unread() or ''
  answer[7] = answer[11]
  return answer
end
answer[4], answer[5] = 1, group.pending
-- Redis' lag still includes unread entries that were trimmed by hand, and tidewheel's counts miss entries that another
-- client has added: if the two disagree, read the stream.
local function nothing_unread()
  if before(delivered, counts[2]) then return false end
  if not group.lag or group.lag == 0 then return true end
  return #redis.call('XRANGE', stream, '(' .. delivered, '+', 'COUNT', 1) == 0
end
if answer[1] == 0 or nothing_unread() then
  answer[6] = 0
elseif group.lag then
  -- Redis' lag still includes unread entries that were trimmed by hand.
  answer[6] = math.min(group.lag, answer[1])
end
if group.pending > 0 then
  answer[7] = redis.call('XPENDING', stream, wanted)[2]
elseif answer[6] ~= 0 then
  answer[11] = first_unread()
  answer[7] = answer[11]
end
for _, facts in ipairs(redis.call('XINFO', 'CONSUMERS', stream, wanted)) do
  local consumer = named(facts)
  answer[#answer + 1] = consumer.name
  answer[#answer + 1] = consumer.pending
  answer[#answer + 1] = consumer.idle
end
return answer
