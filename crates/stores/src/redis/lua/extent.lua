#!lua flags=no-writes
-- What a stream holds.
--
-- KEYS: stream
-- Answers: first id ('' if none), newest id ever, entries, entries ever.
if redis.call('EXISTS', KEYS[1]) == 0 then return { '', '0-0', 0, 0 } end
local facts, info = {}, redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do facts[info[i]] = info[i + 1] end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return { first and first[1] or '', facts['last-generated-id'], facts.length, facts['entries-added'] }
