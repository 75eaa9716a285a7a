#!lua flags=no-writes
-- How far both stages have come, and what of them is lost, at one moment.
--
-- KEYS: stage 1, stage 2, counts, damage
-- ARGV: group of stage 1, group of stage 2
-- Answers for each stage: newest id ever, oldest id not acknowledged ('' if none), what is wrong with it ('' if nothing);
-- then the damage on record ('' if none).
local function named(facts)
  local result = {}
  for i = 1, #facts, 2 do result[facts[i]] = facts[i + 1] end
  return result
end
local answer = {}
for i, name in ipairs({ 'raw', 'embedded' }) do
  local stream, wanted = KEYS[i], ARGV[i]
  local last, waiting, harm, added, length = '0-0', '', '', 0, 0
  local function first_after(id)
    local entry = redis.call('XRANGE', stream, id, '+', 'COUNT', 1)[1]
    return entry and entry[1] or ''
  end
  if redis.call('EXISTS', stream) == 1 then
    local info = named(redis.call('XINFO', 'STREAM', stream))
    last, added, length = info['last-generated-id'], info['entries-added'], info.length
    local group
    for _, facts in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local candidate = named(facts)
      if candidate.name == wanted then group = candidate end
    end
    if not group then
      waiting = first_after('-')
    else
      local delivered = group['last-delivered-id']
      local unread = first_after('(' .. delivered)
      waiting = group.pending > 0 and redis.call('XPENDING', stream, wanted)[2] or unread
    end
  end
  -- More is gone than what was trimmed here: somebody has deleted or trimmed entries. Whether they had been acknowledged
  -- cannot be told afterwards; to send again what came after the applied checkpoint costs little.
  local removed = added - length
  if removed > tonumber(redis.call('HGET', KEYS[3], name .. '_removed') or 0) then
    harm = 'entries of ' .. stream .. ' were deleted by somebody else'
  end
  local expected = tonumber(redis.call('HGET', KEYS[3], name) or 0)
  if added < expected then harm = 'the stream ' .. stream .. ' was deleted' end
  answer[#answer + 1] = last
  answer[#answer + 1] = waiting
  answer[#answer + 1] = harm
end
answer[#answer + 1] = redis.call('GET', KEYS[4]) or ''
return answer
