-- The order of entry ids. Their parts have up to 20 digits, more than a number can hold.
local function is_less(one, other)
  if #one ~= #other then return #one < #other end
  return one < other
end

local function is_before(one, other)
  local one_ms, one_number = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_number = string.match(other, '^(%d+)-(%d+)$')
  if one_ms ~= other_ms then return is_less(one_ms, other_ms) end
  return is_less(one_number, other_number)
end
