#!lua flags=no-writes
-- Returns the catalog of indexes at one moment.
--
-- KEYS: indexes
-- Returns the time in milliseconds, then name and value of each field.
local time = redis.call('TIME')
local answer = { string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)) }
local cursor = '0'
repeat
  local page = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', 1000)
  cursor = page[1]
  for _, value in ipairs(page[2]) do answer[#answer + 1] = value end
until cursor == '0'
return answer
