#!lua flags=allow-oom
-- Keeps what a process says of itself, and forgets what processes said that have not said anything for a while. Allowed
-- when memory is full: it is little, and that is when somebody looks.
--
-- KEYS: services
-- ARGV: process, its text ('' takes it back), after how many milliseconds a text is forgotten
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- One answer has all of them: a hash as small as this one is not scanned in parts.
local all = redis.call('HSCAN', KEYS[1], 0, 'COUNT', 1000)[2]
for i = 1, #all, 2 do
  local said = tonumber(string.match(all[i + 1], '^%d+')) or 0
  if now - said > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], all[i]) end
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %s', now, ARGV[2]))
end
