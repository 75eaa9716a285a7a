#!lua flags=allow-oom
-- Stores the report of a process, and deletes expired reports. Allowed at maxmemory: reports are small, and operators
-- need them then.
--
-- KEYS: services
-- ARGV: process, its report ('' removes it), milliseconds after which a report expires
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- One reply holds all: a hash this small is not scanned in parts.
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
