#!lua
-- Appends entries to a stage, and counts them. Fails at maxmemory: a replay can wait.
--
-- KEYS: stream, counts
-- ARGV: the stream's field in counts; bytes of the largest entry; then for each entry the count of its names and
--       values, followed by these.
local name, largest = ARGV[1], tonumber(ARGV[2])
local at, added, last = 3, 0, nil
while at <= #ARGV do
  local values = tonumber(ARGV[at])
  last = redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 1, at + values))
  at, added = at + 1 + values, added + 1
end
count_appended(KEYS[2], name, added, last, largest)
return redis.status_reply('OK')
