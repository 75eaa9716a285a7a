#!lua flags=no-writes
-- Finds the entries of some documents in a part of a stream, newest first, in about 8 MiB per call. Omits vectors.
--
-- KEYS: stream
-- ARGV: group ('' for a stream without), start id ('+' for the newest), number of entries to scan, then for each
--       document its namespace and key. Entries of a whole collection match by namespace alone.
-- Returns: entries scanned, the id of the last ('' if none), whether the stream ends there, and for each match its id,
-- state and fields. The state is 'waiting', 'confirmed' or 'pending' with the consumer, idle milliseconds and
-- deliveries.
local stream, group = KEYS[1], ARGV[1]
if redis.call('EXISTS', stream) == 0 then return { 0, '', 1, {} } end
local documents, namespaces = {}, {}
for i = 4, #ARGV, 2 do
  documents[ARGV[i] .. '\0' .. ARGV[i + 1]] = true
  namespaces[ARGV[i]] = true
end
local delivered
if group ~= '' then
  local facts = group_of(stream, group)
  delivered = facts and facts['last-delivered-id']
end
local function state(id)
  if not delivered then return { 'waiting', '', 0, 0 } end
  local pending = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if pending then return { 'pending', pending[2], pending[3], pending[4] } end
  return { before(delivered, id) and 'waiting' or 'confirmed', '', 0, 0 }
end
local found, from, looked, held, ended = {}, ARGV[2], 0, 0, 0
while looked < tonumber(ARGV[3]) and held < 8388608 do
  local entry = redis.call('XREVRANGE', stream, from, '-', 'COUNT', 1)[1]
  if not entry then
    ended = 1
    break
  end
  looked, from = looked + 1, '(' .. entry[1]
  local fields, key, namespace, operation = entry[2], '', '', ''
  for i = 1, #fields, 2 do
    held = held + #fields[i + 1]
    if fields[i] == 'key' then key = fields[i + 1] end
    if fields[i] == 'namespace' then namespace = fields[i + 1] end
    if fields[i] == 'operation' then operation = fields[i + 1] end
  end
  if documents[namespace .. '\0' .. key] or (operation == 'drop' and namespaces[namespace]) then
    local kept = {}
    for i = 1, #fields, 2 do
      if fields[i] ~= 'vectors' then
        kept[#kept + 1] = fields[i]
        kept[#kept + 1] = fields[i + 1]
      end
    end
    found[#found + 1] = { entry[1], state(entry[1]), kept }
  end
end
return { looked, looked > 0 and string.sub(from, 2) or '', ended, found }
