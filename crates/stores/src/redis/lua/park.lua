#!lua flags=allow-oom
-- Moves pending entries to the dead-letter queue and acknowledges them. An entry that is no longer pending was finished
-- or parked by another consumer and is skipped, so that a retried call parks nothing twice. Stops after about a number
-- of bytes: entries may be as large as documents.
--
-- KEYS: stream, dead letters
-- ARGV: group, approximate bytes, then for each entry its id, the reason, the attempts, and the failed targets as JSON
--       ('' for all of the entry): the dead letter has only these, and no targets that the document has left
-- Returns how many of these entries it has handled.
local function for_targets(fields, targets)
  if targets == '' then return fields end
  local kept = {}
  for j = 1, #fields, 2 do
    if fields[j] ~= 'leaves' then
      kept[#kept + 1] = fields[j]
      kept[#kept + 1] = fields[j] == 'targets' and targets or fields[j + 1]
    end
  end
  return kept
end

local time = redis.call('TIME')
local parked_at = time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))
local done, held, bytes = 0, 0, tonumber(ARGV[2])
for i = 3, #ARGV, 4 do
  if held >= bytes then break end
  local id = ARGV[i]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)
  if #pending > 0 then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    local fields = entry and for_targets(entry[2], ARGV[i + 3]) or {}
    for j = 2, #fields, 2 do held = held + #fields[j] end
    for _, value in ipairs({
      'stream', KEYS[1], 'entry', id, 'reason', ARGV[i + 1], 'attempts', ARGV[i + 2], 'parked_at', parked_at,
    }) do
      fields[#fields + 1] = value
    end
    redis.call('XADD', KEYS[2], '*', unpack(fields))
    redis.call('XACK', KEYS[1], ARGV[1], id)
  end
  done = done + 1
end
return done
