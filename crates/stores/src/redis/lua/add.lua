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
if added > 0 then
  redis.call('HINCRBY', KEYS[2], name, added)
  redis.call('HSET', KEYS[2], name .. '_last', last)
  for _, size in ipairs({ 8192, 32768, 131072 }) do
    local field = name .. '_over_' .. size
    if largest > size then
      redis.call('HSET', KEYS[2], field, last)
    else
      redis.call('HSETNX', KEYS[2], field, last)
    end
  end
end
return redis.status_reply('OK')
