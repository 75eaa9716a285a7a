#!lua flags=allow-oom
-- Puts dead letters back at the end of their stage. A letter that is gone was put back or discarded by somebody else, so that
-- a repeated call adds nothing twice.
--
-- KEYS: stage, dead letters, counts, retried
-- ARGV: the stage's field in counts; for how many seconds no deletion is forgotten; how many names and values of a letter are
--       not the entry's own; ids
local about, moved = tonumber(ARGV[3]), 0
for i = 4, #ARGV do
  local letter = redis.call('XRANGE', KEYS[2], ARGV[i], ARGV[i])[1]
  if letter and #letter[2] > about then
    -- First, so that no moment is without: while there is a letter, nothing is forgotten either.
    if moved == 0 then redis.call('SET', KEYS[4], '1', 'EX', ARGV[2]) end
    redis.call('XADD', KEYS[1], '*', unpack(letter[2], 1, #letter[2] - about))
    redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
    redis.call('XDEL', KEYS[2], ARGV[i])
    moved = moved + 1
  end
end
return moved
