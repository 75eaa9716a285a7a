#!lua flags=allow-oom
-- Takes over entries as XAUTOCLAIM does, and puts those on record that are found to be gone: once they are out of the list
-- of pending entries, nothing else would tell that they were not confirmed.
--
-- KEYS: stream, damage
-- ARGV: group, consumer, milliseconds, start, most
local answer = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
if #answer[3] > 0 and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SET', KEYS[2], 'entries of ' .. KEYS[1] .. ' were removed before they were acknowledged')
end
return answer
