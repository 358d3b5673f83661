-- Read new entries from several streams in order, never more than there is room for, without blocking.
-- KEYS: the streams. ARGV: group, consumer, number of rooms, the size of each room, then for each stream the number of its room.
-- Answers: {stream number, entries} of each stream that gave some, {stream number, error} of each that could not be read.
-- An error of one stream must not hide what another one has just delivered, hence pcall.
local group, consumer, rooms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local left, entries, errors = {}, {}, {}
for room = 1, rooms do left[room] = tonumber(ARGV[3 + room]) end
for position = 1, #KEYS do
  local room = tonumber(ARGV[3 + rooms + position])
  if left[room] > 0 then
    local reply = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', left[room], 'STREAMS', KEYS[position], '>')
    if reply and reply['err'] then
      errors[#errors + 1] = { position, reply['err'] }
    elseif reply and reply[1] then
      left[room] = left[room] - #reply[1][2]
      entries[#entries + 1] = { position, reply[1][2] }
    end
  end
end
return { entries, errors }
