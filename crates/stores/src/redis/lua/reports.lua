#!lua flags=no-writes
-- Returns the reports of the processes.
--
-- KEYS: services
-- ARGV: milliseconds after which a report expires
-- Returns: for each process its name, its report, and the report's age in milliseconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local all, answer = redis.call('HSCAN', KEYS[1], 0, 'COUNT', 1000)[2], {}
for i = 1, #all, 2 do
  local said, text = string.match(all[i + 1], '^(%d+) (.*)$')
  if said and now - tonumber(said) <= tonumber(ARGV[1]) then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = text
    answer[#answer + 1] = math.max(0, now - tonumber(said))
  end
end
return answer
