-- Remove the oldest entries that a retention lets go, a bounded number of them, and none that some group has still to be given or has
-- pending. Looked at and done in one step, so that nothing comes between.
-- KEYS: the stream. ARGV: how many entries it may hold ('' any number), how old they may be in ms ('' any age), 1 when all goes that every
-- group has acknowledged, how many to remove at most, then the groups without which nothing goes.
-- Answers: how many were removed, how many are left, and where there is more than there may be, because a group needs it: the group, and
-- why ('pending', 'undelivered', 'missing', or 'groupless' where there is no group at all).
local stream, most, age = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local all_acknowledged, step = ARGV[3] == '1', tonumber(ARGV[4])

local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
if not first then return { 0, 0 } end
first = first[1]

-- The id after this one. Where that cannot be said in a number, the entry itself stays.
local function after(id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  if #number > 15 then return id end
  return ms .. '-' .. string.format('%.0f', tonumber(number) + 1)
end

-- The guard: what is before it, no group needs. What is pending and not there any more needs nothing.
local guard, holder, why
local there = {}
for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local info = {}
  for position = 1, #row, 2 do info[row[position]] = row[position + 1] end
  local name, needed, reason = info['name'], after(info['last-delivered-id']), 'undelivered'
  if info['pending'] > 0 then
    local oldest = redis.call('XPENDING', stream, name, first, '+', 1)[1]
    if oldest and is_before(oldest[1], needed) then needed, reason = oldest[1], 'pending' end
  end
  if not guard or is_before(needed, guard) then guard, holder, why = needed, name, reason end
  there[name] = true
end
if not guard then guard, holder, why = '0-0', '', 'groupless' end
for position = 5, #ARGV do
  if not there[ARGV[position]] then guard, holder, why = '0-0', ARGV[position], 'missing' end
end

local removed = 0

-- Whole nodes first, which is much cheaper; what is left in the last one when there are no more of them.
local function trim(before)
  local bound = is_before(guard, before) and guard or before
  if not is_before(first, bound) then return end
  removed = redis.call('XTRIM', stream, 'MINID', '~', bound, 'LIMIT', step)
  if removed == 0 then removed = redis.call('XTRIM', stream, 'MINID', bound) end
end

-- The id of the entry behind the first `count`, or behind fewer that are large.
local function behind(count)
  local id, seen, bytes, bite = first, 0, 0, 8
  while seen <= count and (seen < 2 or bytes < 1048576) and is_before(id, guard) do
    local page = redis.call('XRANGE', stream, seen == 0 and '-' or '(' .. id, '+', 'COUNT', math.min(bite, count + 1 - seen))
    if #page == 0 then break end
    for _, entry in ipairs(page) do
      id, seen = entry[1], seen + 1
      for _, value in ipairs(entry[2]) do bytes = bytes + #value end
    end
    bite = math.min(64, 2 * bite)
  end
  return id
end

local oldest_allowed
if age then
  local time = redis.call('TIME')
  oldest_allowed = string.format('%.0f-0', math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - age))
end
if all_acknowledged then trim(guard) elseif oldest_allowed then trim(oldest_allowed) end
local length = redis.call('XLEN', stream)
if removed == 0 and most and length > most then
  local before = behind(math.min(length - most, step))
  if is_before(guard, before) then before = guard end
  if is_before(first, before) then removed = redis.call('XTRIM', stream, 'MINID', before) end
  length = length - removed
end
if removed > 0 or not ((most and length > most) or (oldest_allowed and is_before(first, oldest_allowed))) then
  return { removed, length }
end
return { removed, length, holder, why }
