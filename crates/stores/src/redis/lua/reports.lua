#!lua flags=no-writes
-- What the processes say of themselves.
--
-- KEYS: services
-- Answers: for each process its name, its text, and how many milliseconds ago it said so.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local all, answer = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local said, text = string.match(all[i + 1], '^(%d+) (.*)$')
  if said then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = text
    answer[#answer + 1] = math.max(0, now - tonumber(said))
  end
end
return answer
