#!lua flags=no-writes
-- Returns the extent of a stream.
--
-- KEYS: stream
-- Returns: first id ('' if none), last generated id, entries, entries ever added.
if redis.call('EXISTS', KEYS[1]) == 0 then return { '', '0-0', 0, 0 } end
local facts, info = {}, redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do facts[info[i]] = info[i + 1] end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return { first and first[1] or '', facts['last-generated-id'], facts.length, facts['entries-added'] }
