-- Set an entry aside as a dead letter: exactly one, and never an acknowledgement without it.
-- KEYS: the stream it is pending in, the dead-letter stream.
-- ARGV: group, consumer, entry id, delivery count, 1 to remove the entry, max length ('' for none), values …
-- Answers 1, or 0 when the entry is not ours any more.
local source, group, consumer, id, count = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local pending = redis.call('XPENDING', source, group, id, id, 1, consumer)
if not (pending[1] and pending[1][4] == count) then return 0 end

local command = { 'XADD', KEYS[2] }
if ARGV[6] ~= '' then
  command[3], command[4], command[5] = 'MAXLEN', '~', ARGV[6]
end
command[#command + 1] = '*'
for position = 7, #ARGV do command[#command + 1] = ARGV[position] end
redis.call(unpack(command))
redis.call('XACK', source, group, id)
if ARGV[5] == '1' then redis.call('XDEL', source, id) end
return 1
