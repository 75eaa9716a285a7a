-- Counts entries that were appended to a stage, and records the newest id and, for each size, the newest id whose entry
-- may be larger.
local function count_appended(counts, name, added, last, largest)
  if added == 0 then return end
  redis.call('HINCRBY', counts, name, added)
  redis.call('HSET', counts, name .. '_last', last)
  for _, size in ipairs({ 8192, 32768, 131072 }) do
    local field = name .. '_over_' .. size
    if largest > size then
      redis.call('HSET', counts, field, last)
    else
      redis.call('HSETNX', counts, field, last)
    end
  end
end
