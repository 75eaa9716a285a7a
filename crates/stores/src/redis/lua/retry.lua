#!lua flags=allow-oom
-- Moves dead letters back to the end of their stage, except those that a collected tombstone of one of their targets
-- may have followed. A missing dead letter was retried or discarded by another caller, so that a retried call adds
-- nothing twice. Stops after about a number of bytes: dead letters may be as large as documents.
--
-- KEYS: stage, dead letters, counts, retried, for each target the state of its tombstones
-- ARGV: the stage's field in counts; seconds for which the retry is remembered; count of names and values that describe
--       the dead letter instead of its entry; approximate bytes; number t of targets; t names ('' for entries that name
--       no target); ids
-- Returns how many of these dead letters it has handled, how many it has moved, and the ids of those that are outdated.
local name, about, bytes = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local count = tonumber(ARGV[5])
local forgotten = {}
for i = 1, count do forgotten[ARGV[5 + i]] = redis.call('HGET', KEYS[4 + i], 'forgotten') end

-- The names of the targets that an entry writes to. An undecodable entry is moved: its consumer parks it again.
local function targets_of(entry)
  if entry.targets then
    local decoded, targets = pcall(cjson.decode, entry.targets)
    return decoded and type(targets) == 'table' and targets or {}
  end
  return { entry.index and entry.generation and entry.index .. '.g' .. entry.generation or '' }
end
local function is_outdated(entry)
  if not entry.version or entry.operation == 'delete' or entry.operation == 'drop' then return false end
  for _, target in ipairs(targets_of(entry)) do
    if forgotten[target] and newer(forgotten[target], entry.version) then return true end
  end
  return false
end

local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local done, moved, held, outdated = 0, 0, 0, {}
for i = 6 + count, #ARGV do
  if held >= bytes then break end
  local letter = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
  if letter and #letter[2] > about then
    local fields, size, entry = letter[2], 0, {}
    for j = 1, #fields - about, 2 do
      size = size + #fields[j + 1]
      entry[fields[j]] = fields[j + 1]
    end
    held = held + size
    if is_outdated(entry) then
      outdated[#outdated + 1] = ARGV[i]
    else
      -- First, so that the mark is never missing.
      if moved == 0 then redis.call('SET', KEYS[4], now, 'EX', ARGV[2]) end
      local id = redis.call('XADD', KEYS[1], '*', unpack(fields, 1, #fields - about))
      redis.call('HINCRBY', KEYS[3], name, 1)
      redis.call('HSET', KEYS[3], name .. '_last', id)
      for _, threshold in ipairs({ 8192, 32768, 131072 }) do
        if size > threshold then redis.call('HSET', KEYS[3], name .. '_over_' .. threshold, id) end
      end
      redis.call('XDEL', KEYS[2], ARGV[i])
      moved = moved + 1
    end
  end
  done = done + 1
end
return { done, moved, outdated }
