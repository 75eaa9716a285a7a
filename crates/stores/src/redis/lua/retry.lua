#!lua flags=allow-oom
-- Moves dead letters back to the end of their stage, except those that a collected tombstone may have followed. A
-- missing dead letter was retried or discarded by another caller, so that a retried call adds nothing twice. Stops
-- after about a number of bytes: dead letters may be as large as documents.
--
-- KEYS: stage, dead letters, counts, retried, state of the tombstones
-- ARGV: the stage's field in counts; seconds for which the retry is remembered; count of names and values that describe
--       the dead letter instead of its entry; approximate bytes; ids
-- Returns how many of these dead letters it has handled, how many it has moved, and the ids of those that are outdated.
local name, about, bytes = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local forgotten = redis.call('HGET', KEYS[5], 'forgotten')
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local done, moved, held, outdated = 0, 0, 0, {}
for i = 5, #ARGV do
  if held >= bytes then break end
  local letter = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
  if letter and #letter[2] > about then
    local fields, size, version, writes = letter[2], 0, nil, true
    for j = 1, #fields - about, 2 do
      size = size + #fields[j + 1]
      if fields[j] == 'version' then version = fields[j + 1] end
      if fields[j] == 'operation' then writes = fields[j + 1] ~= 'delete' and fields[j + 1] ~= 'drop' end
    end
    held = held + size
    if forgotten and version and writes and newer(forgotten, version) then
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
