-- The ids of entries, and the facts of XINFO.
local function named(facts)
  local result = {}
  for i = 1, #facts, 2 do result[facts[i]] = facts[i + 1] end
  return result
end
local function group_of(stream, name)
  for _, facts in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = named(facts)
    if group.name == name then return group end
  end
end
local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function before(a, b)
  local a_ms, a_seq = parse(a)
  local b_ms, b_seq = parse(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end
