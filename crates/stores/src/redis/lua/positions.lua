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
local function before(a, b)
  local a_time, a_number = string.match(a, '^(%d+)-(%d+)$')
  local b_time, b_number = string.match(b, '^(%d+)-(%d+)$')
  a_time, b_time = tonumber(a_time), tonumber(b_time)
  return a_time < b_time or (a_time == b_time and tonumber(a_number) < tonumber(b_number))
end

local answer = {}
for i, name in ipairs({ 'raw', 'embedded' }) do
  local stream, wanted = KEYS[i], ARGV[i]
  local last, waiting, harm, added = '0-0', '', '', 0
  local function first_after(id)
    local entry = redis.call('XRANGE', stream, id, '+', 'COUNT', 1)[1]
    return entry and entry[1] or ''
  end
  if redis.call('EXISTS', stream) == 1 then
    local info = named(redis.call('XINFO', 'STREAM', stream))
    last, added = info['last-generated-id'], info['entries-added']
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
      -- XDEL of an entry that nobody had read.
      local deleted = info['max-deleted-entry-id']
      if before(delivered, deleted) and redis.call('HGET', KEYS[3], name .. '_deleted') ~= deleted then
        harm = 'entries of ' .. stream .. ' were deleted before they were read'
      end
      -- XTRIM of entries that nobody had read: more is gone than what was trimmed here, and nothing that was read is left in
      -- front of it. Redis' own lag tells as well, but it is wrong after a restart.
      local first = first_after('-')
      local removed = added - info.length - tonumber(redis.call('HGET', KEYS[3], name .. '_removed') or 0)
      if removed > 0 and (first == '' or before(delivered, first)) then
        harm = 'entries of ' .. stream .. ' were trimmed before they were read'
      end
    end
  end
  local expected = tonumber(redis.call('HGET', KEYS[3], name) or 0)
  if added < expected then harm = 'the stream ' .. stream .. ' was deleted' end
  answer[#answer + 1] = last
  answer[#answer + 1] = waiting
  answer[#answer + 1] = harm
end
answer[#answer + 1] = redis.call('GET', KEYS[4]) or ''
return answer
