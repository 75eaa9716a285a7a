#!lua
-- Appends entries to a stage, and counts them. Not allowed when memory is full: whoever replays can wait.
--
-- KEYS: stream, counts
-- ARGV: the stream's field in counts; then for each entry the number of its names and values together, and these.
local at, added = 2, 0
while at <= #ARGV do
  local values = tonumber(ARGV[at])
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 1, at + values))
  at, added = at + 1 + values, added + 1
end
if added > 0 then redis.call('HINCRBY', KEYS[2], ARGV[1], added) end
return redis.status_reply('OK')
