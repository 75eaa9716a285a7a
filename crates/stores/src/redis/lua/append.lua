#!lua
-- Atomically appends entries and dead letters and replaces the checkpoint.
--
-- KEYS: stage 1, checkpoint, counts, applied checkpoint, damage, stage 2, dead letters of stage 1
-- ARGV: 'append', 'rewind' or 'anew'; '1' if a checkpoint is expected, else '0'; bytes of the largest entry; number n
--       of the checkpoint's fields; n names; n expected values (if expected); n new values; then for each entry the
--       count of its names and values, followed by these. The count is negative for a dead letter.
-- 'rewind' and 'anew' also accept the streams in their current state as undamaged; 'anew' deletes the applied
-- checkpoint and the record of a lost collection.
-- Returns 'saved', or 'conflict' if the checkpoint is neither the expected one nor already the new one.
local stream, checkpoint, counts = KEYS[1], KEYS[2], KEYS[3]
local mode, wants_one, largest, count = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), tonumber(ARGV[4])
local names = { unpack(ARGV, 5, 4 + count) }
local at = 5 + count
local current = redis.call('HMGET', checkpoint, unpack(names))

local function current_is(first)
  for i = 1, count do
    if (current[i] or '') ~= ARGV[first + i - 1] then return false end
  end
  return true
end

local as_expected
if wants_one then
  as_expected = current_is(at)
  at = at + count
else
  as_expected = redis.call('EXISTS', checkpoint) == 0
end
if not as_expected then
  -- The reply to an earlier, identical call was lost: its work is done.
  return current_is(at) and 'saved' or 'conflict'
end

local fields = {}
for i = 1, count do
  fields[2 * i - 1] = names[i]
  fields[2 * i] = ARGV[at + i - 1]
end
at = at + count

local added, last = 0, nil
while at <= #ARGV do
  local values = tonumber(ARGV[at])
  if values < 0 then
    values = -values
    redis.call('XADD', KEYS[7], '*', unpack(ARGV, at + 1, at + values))
  else
    last = redis.call('XADD', stream, '*', unpack(ARGV, at + 1, at + values))
    added = added + 1
  end
  at = at + 1 + values
end
count_appended(counts, 'raw', added, last, largest)

if mode ~= 'append' then
  for name, key in pairs({ raw = stream, embedded = KEYS[6] }) do
    local facts = { ['entries-added'] = 0, length = 0 }
    if redis.call('EXISTS', key) == 1 then facts = named(redis.call('XINFO', 'STREAM', key)) end
    redis.call('HSET', counts, name, facts['entries-added'], name .. '_removed', facts['entries-added'] - facts.length)
    local newest = facts.length > 0 and redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
    redis.call('HSET', counts, name .. '_last', newest and newest[1] or '0-0')
  end
  local damage = redis.call('GET', KEYS[5])
  if damage and (mode == 'anew' or string.sub(damage, 1, 10) ~= 'collection') then redis.call('DEL', KEYS[5]) end
  if mode == 'anew' then redis.call('DEL', KEYS[4]) end
end
redis.call('HSET', checkpoint, unpack(fields))
return 'saved'
