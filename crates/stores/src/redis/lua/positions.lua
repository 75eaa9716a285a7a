#!lua flags=allow-oom
-- Returns the positions of both stages and their damage, at one moment. Runs up to ten times a second, so it reads ids
-- and counts alone: a command that returns entries copies 16 MB where documents are that large.
--
-- KEYS: stage 1, stage 2, counts, damage, indexes, lost
-- ARGV: group of stage 1, group of stage 2
-- Returns for each stage: last generated id, the first id that an unacknowledged entry may have ('' if none), its
-- damage ('' if none); then the recorded damage ('' if none), the time in milliseconds, the revision of the catalog,
-- and for each target that has lost something its name and the recorded text.
local answer = {}
for i, name in ipairs({ 'raw', 'embedded' }) do
  local stream, wanted = KEYS[i], ARGV[i]
  local known = redis.call('HMGET', KEYS[3], name, name .. '_removed', name .. '_last')
  local added, removed, last = tonumber(known[1] or 0), tonumber(known[2] or 0), known[3] or '0-0'
  local length, waiting, harm = redis.call('XLEN', stream), '', ''
  -- Usually the counts beside the streams match. Otherwise another client or an older release of tidewheel has added or
  -- removed entries, and the stream itself is inspected.
  if length ~= added - removed or #redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1) > 0 then
    local ever, newest = 0, '0-0'
    if redis.call('EXISTS', stream) == 1 then
      local info = named(redis.call('XINFO', 'STREAM', stream))
      ever, newest = info['entries-added'], info['last-generated-id']
    end
    -- Whether deleted entries had been acknowledged cannot be determined afterwards; appending everything after the
    -- applied checkpoint again is cheap.
    if ever < added then
      harm = 'the stream ' .. stream .. ' was deleted'
    elseif ever - length > removed then
      harm = 'entries of ' .. stream .. ' were deleted by another client'
    else
      redis.call('HSET', KEYS[3], name, ever, name .. '_removed', ever - length, name .. '_last', newest)
    end
    last = newest
  end
  local group = redis.call('EXISTS', stream) == 1 and group_of(stream, wanted)
  if group and group.pending > 0 then
    waiting = redis.call('XPENDING', stream, wanted)[2]
  elseif length > 0 and not group then
    waiting = '0-1'
  elseif length > 0 and before(group['last-delivered-id'], last) then
    local ms, seq = parse(group['last-delivered-id'])
    waiting = string.format('%.0f-%.0f', ms, seq + 1)
  end
  answer[#answer + 1] = last
  answer[#answer + 1] = waiting
  answer[#answer + 1] = harm
end
answer[#answer + 1] = redis.call('GET', KEYS[4]) or ''
local time = redis.call('TIME')
answer[#answer + 1] = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
answer[#answer + 1] = redis.call('HGET', KEYS[5], '#revision') or '0'
if redis.call('HLEN', KEYS[6]) > 0 then
  for _, value in ipairs(redis.call('HSCAN', KEYS[6], 0, 'COUNT', 1000)[2]) do answer[#answer + 1] = value end
end
return answer
