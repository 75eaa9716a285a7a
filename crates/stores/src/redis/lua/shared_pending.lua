-- Whether any of the entries ARGV[first] to ARGV[last] is pending in the group.
local function any_pending(stream, group, first, last)
  if redis.call('EXISTS', stream) == 0 then return false end
  for i = first, last do
    if #redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1) > 0 then return true end
  end
  return false
end
