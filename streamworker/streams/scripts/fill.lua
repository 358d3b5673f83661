-- Read new entries from several streams in order, never more than there is room for, without blocking.
-- KEYS: the streams. ARGV: group, consumer, how many bytes there is room for, how large an entry may be expected to be, number of
-- rooms, the size of each room, then for each stream the number of its room.
-- Answers: {stream number, entries} for each read that gave some, {stream number, error} of each stream that could not be read.
-- An error of one stream must not hide what another one has just delivered, hence pcall.
local group, consumer, bytes, expected, rooms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local left, entries, errors = {}, {}, {}
for room = 1, rooms do left[room] = tonumber(ARGV[5 + room]) end

-- How large an entry is shows only when it is read, and then it is ours: so a few at first, more as long as they turn out small, until
-- the room is full either way.
local step, LONGEST_STEP = 8, 64

local function weigh(read)
  local sum = 0
  for _, entry in ipairs(read) do
    for _, value in ipairs(entry[2] or {}) do sum = sum + #value end
  end
  return sum
end

for position = 1, #KEYS do
  local room = tonumber(ARGV[5 + rooms + position])
  local more = true
  while more and left[room] > 0 and bytes > 0 do
    local count = math.min(left[room], step, math.max(1, math.floor(bytes / expected)))
    local reply = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', KEYS[position], '>')
    more = false
    if reply and reply['err'] then
      errors[#errors + 1] = { position, reply['err'] }
    elseif reply and reply[1] then
      local read = reply[1][2]
      local weight = weigh(read)
      bytes, expected, step = bytes - weight, math.max(1, weight / #read), math.min(LONGEST_STEP, 2 * step)
      left[room] = left[room] - #read
      entries[#entries + 1] = { position, read }
      more = #read == count
    end
  end
end
return { entries, errors }
