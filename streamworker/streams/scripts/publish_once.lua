-- Add an entry, unless one of the same dedupe id was added within the window.
-- KEYS: the marker. ARGV: the stream (the marker lies in its slot), window in ms, 1 when the stream must be there, max length ('' for
-- none), values … Answers the id of the entry, of this or of the earlier call; nil when there is no stream.
local earlier = redis.call('GET', KEYS[1])
if earlier and earlier ~= '' then
  redis.call('SET', KEYS[1], earlier, 'KEEPTTL') -- so that whoever asks for replicas waits for more than this call's nothing
  return earlier
end

local command = { 'XADD', ARGV[1] }
if ARGV[3] == '1' then command[#command + 1] = 'NOMKSTREAM' end
if ARGV[4] ~= '' then
  for _, word in ipairs({ 'MAXLEN', '~', ARGV[4] }) do command[#command + 1] = word end
end
command[#command + 1] = '*'
for position = 5, #ARGV do command[#command + 1] = ARGV[position] end

-- The marker comes first: where it is refused, nothing is written. Where the entry is refused, the marker goes again.
redis.call('SET', KEYS[1], '', 'PX', ARGV[2])
local id = redis.pcall(unpack(command))
if not id or id['err'] then
  redis.call('PEXPIRE', KEYS[1], 0) -- gone, without the right to delete any key
  return id
end
redis.call('SET', KEYS[1], id, 'PX', ARGV[2])
return id
