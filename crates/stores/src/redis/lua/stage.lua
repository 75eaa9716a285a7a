#!lua flags=no-writes
-- What is known of a stream and one of its groups, at one moment.
--
-- KEYS: stream, dead letters
-- ARGV: group
-- Answers: length, dead letters, now in milliseconds, whether there is the group, entries pending, lag (-1 if unknown),
-- first id not confirmed ('' if none), newest id ('' if none), entries ever appended, then for each consumer its name, entries pending, idle milliseconds.
local stream, wanted = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local answer = { redis.call('XLEN', stream), redis.call('XLEN', KEYS[2]), now, 0, 0, -1, '', '', 0 }
if redis.call('EXISTS', stream) == 0 then return answer end

local function named(facts)
  local result = {}
  for i = 1, #facts, 2 do result[facts[i]] = facts[i + 1] end
  return result
end
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
answer[8] = newest and newest[1] or ''
answer[9] = named(redis.call('XINFO', 'STREAM', stream))['entries-added']
local group
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local candidate = named(facts)
  if candidate.name == wanted then group = candidate end
end
local function first_after(id)
  local entry = redis.call('XRANGE', stream, id, '+', 'COUNT', 1)[1]
  return entry and entry[1] or ''
end
if not group then
  answer[7] = first_after('-')
  return answer
end
answer[4], answer[5] = 1, group.pending
local unread = first_after('(' .. group['last-delivered-id'])
if unread == '' then
  answer[6] = 0
elseif group.lag then
  -- Redis goes on counting unread entries that somebody has trimmed.
  answer[6] = math.min(group.lag, answer[1])
end
answer[7] = group.pending > 0 and redis.call('XPENDING', stream, wanted)[2] or unread
for _, facts in ipairs(redis.call('XINFO', 'CONSUMERS', stream, wanted)) do
  local consumer = named(facts)
  answer[#answer + 1] = consumer.name
  answer[#answer + 1] = consumer.pending
  answer[#answer + 1] = consumer.idle
end
return answer
