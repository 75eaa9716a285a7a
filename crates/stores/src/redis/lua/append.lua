#!lua
-- Appends entries and replaces the checkpoint, both or neither.
--
-- KEYS: stream, checkpoint
-- ARGV: '1' if a checkpoint is expected, else '0'; number n of its fields; n names; n expected values (if expected);
--       n new values; then for each entry the number of its names and values together, and these.
-- Answers 'saved', or 'conflict' if the checkpoint is neither the expected one nor already the new one.
local stream, checkpoint = KEYS[1], KEYS[2]
local wants_one, count = ARGV[1] == '1', tonumber(ARGV[2])
local names = { unpack(ARGV, 3, 2 + count) }
local at = 3 + count
local current = redis.call('HMGET', checkpoint, unpack(names))

local function current_is(first)
  for i = 1, count do
    if current[i] ~= ARGV[first + i - 1] then return false end
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
  -- The answer to an earlier, identical call was lost: it is done already.
  return current_is(at) and 'saved' or 'conflict'
end

local fields = {}
for i = 1, count do
  fields[2 * i - 1] = names[i]
  fields[2 * i] = ARGV[at + i - 1]
end
at = at + count

while at <= #ARGV do
  local values = tonumber(ARGV[at])
  redis.call('XADD', stream, '*', unpack(ARGV, at + 1, at + values))
  at = at + 1 + values
end
redis.call('HSET', checkpoint, unpack(fields))
return 'saved'
