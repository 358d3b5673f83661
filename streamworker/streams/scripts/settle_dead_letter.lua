-- Set an entry aside as a dead letter: exactly one, and never an acknowledgement without it.
-- KEYS: the fence's two, the dead-letter stream, the stream for a reply if one is asked for.
-- ARGV: the fence's, max length ('' for none), number of values, values …, the values of the reply.
-- Answers 1, or 0 when the entry is not ours any more.
if not ours() then return 0 end

local command = { 'XADD', KEYS[3] }
if ARGV[6] ~= '' then
  command[3], command[4], command[5] = 'MAXLEN', '~', ARGV[6]
end
command[#command + 1] = '*'
local size = tonumber(ARGV[7])
for position = 8, 7 + size do command[#command + 1] = ARGV[position] end
redis.call(unpack(command))
if KEYS[4] then
  -- Nothing about a reply may keep an entry from being set aside, hence pcall; and whoever does not wait any more gets none.
  local reply = { 'XADD', KEYS[4], 'NOMKSTREAM', 'MAXLEN', '~', 1000, '*' }
  for position = 8 + size, #ARGV do reply[#reply + 1] = ARGV[position] end
  redis.pcall(unpack(reply))
end
acknowledge()
return 1
