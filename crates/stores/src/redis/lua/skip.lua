#!lua flags=allow-oom
-- Acknowledges entries whose records were left out, and records what their targets have lost. Does nothing if none of
-- the entries is pending: then their consumer has written or skipped them.
--
-- KEYS: stream, lost
-- ARGV: group; number g of gaps; target and reason of each; ids
local group, gaps = ARGV[1], tonumber(ARGV[2])
local first_id = 3 + 2 * gaps
if not any_pending(KEYS[1], group, first_id, #ARGV) then return redis.status_reply('OK') end
-- Losses first: a script that is cut off may repeat a record, but never forget one.
for i = 3, first_id - 1, 2 do record_loss(KEYS[2], ARGV[i], ARGV[i + 1]) end
for first = first_id, #ARGV, 1000 do
  redis.call('XACK', KEYS[1], group, unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
return redis.status_reply('OK')
