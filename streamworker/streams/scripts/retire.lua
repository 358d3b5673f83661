-- Delete those of these entries, which `group` has just acknowledged, that no group needs any more: none has still to be given them, and
-- none has them pending. Nothing about it may undo or hold up the acknowledgement, hence pcall: what stays, the trimming finds.
local function retire(stream, group, ids)
  local told = redis.pcall('XINFO', 'GROUPS', stream)
  if told['err'] then return end
  local groups = {}
  for number, row in ipairs(told) do
    local info = {}
    for position = 1, #row, 2 do info[row[position]] = row[position + 1] end
    groups[number] = info
  end

  local function is_needed(id)
    for _, info in ipairs(groups) do
      if is_before(info['last-delivered-id'], id) then return true end
      if info['pending'] > 0 and info['name'] ~= group then
        local pending = redis.pcall('XPENDING', stream, info['name'], id, id, 1)
        if pending['err'] or #pending > 0 then return true end
      end
    end
    return false
  end

  local free = {}
  for _, id in ipairs(ids) do
    if not is_needed(id) then free[#free + 1] = id end
  end
  if #free > 0 then redis.pcall('XDEL', stream, unpack(free)) end
end
