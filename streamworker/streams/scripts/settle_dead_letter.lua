-- Set an entry aside as a dead letter: exactly one, and never an acknowledgement without it.
-- KEYS: the fence's two, the dead-letter stream. ARGV: the fence's, max length ('' for none), values …
-- Answers 1, or 0 when the entry is not ours any more.
if not ours() then return 0 end

local command = { 'XADD', KEYS[3] }
if ARGV[6] ~= '' then
  command[3], command[4], command[5] = 'MAXLEN', '~', ARGV[6]
end
command[#command + 1] = '*'
for position = 7, #ARGV do command[#command + 1] = ARGV[position] end
redis.call(unpack(command))
acknowledge()
return 1
