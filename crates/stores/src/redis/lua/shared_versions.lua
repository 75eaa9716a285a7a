-- The order of versions: four or five integers below 2^32, separated by dots.
local function newer(a, b)
  local left, right = string.gmatch(a, '%d+'), string.gmatch(b, '%d+')
  for _ = 1, 5 do
    local x, y = tonumber(left() or 0), tonumber(right() or 0)
    if x ~= y then return x > y end
  end
  return false
end
