#!lua flags=allow-oom
-- Changes the delivery time of entries, without counting a delivery: only of those still pending for this consumer.
-- Claiming the others would take them from their new consumer.
--
-- KEYS: stream
-- ARGV: group, consumer, 'IDLE' and milliseconds or 'TIME' and milliseconds since 1970, ids
local group, consumer = ARGV[1], ARGV[2]
local own = {}
for i = 5, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], group, ARGV[i], ARGV[i], 1, consumer)
  if #pending > 0 then own[#own + 1] = ARGV[i] end
end
for first = 1, #own, 1000 do
  local claim = { 'XCLAIM', KEYS[1], group, consumer, 0, unpack(own, first, math.min(first + 999, #own)) }
  for _, option in ipairs({ ARGV[3], ARGV[4], 'JUSTID' }) do claim[#claim + 1] = option end
  redis.call(unpack(claim))
end
return #own
