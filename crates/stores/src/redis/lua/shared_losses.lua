-- Records that a target has lost something. The time makes the text of a later loss another one, to the microsecond.
local function record_loss(lost, target, reason)
  local time = redis.call('TIME')
  redis.call('HSET', lost, target, string.format('%s at %s.%06d', reason, time[1], tonumber(time[2])))
end
