-- Acknowledge an entry and publish what its handler gathered, together or not at all.
-- KEYS: the stream it is pending in, then one target stream for each publish.
-- ARGV: group, consumer, entry id, delivery count, 1 to remove the entry, then for each publish: max length ('' for none),
--       number of values, values …
-- Answers 1, or 0 when the entry is not ours any more (then nothing was published).
local source, group, consumer, id, count = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local pending = redis.call('XPENDING', source, group, id, id, 1, consumer)
if not (pending[1] and pending[1][4] == count) then return 0 end

-- A script's error does not undo what it wrote before, so every target is looked at before the first write.
for position = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[position])['ok']
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE cannot publish to ' .. KEYS[position] .. ': it holds a ' .. kind)
  end
end

local at = 6
for position = 2, #KEYS do
  local command = { 'XADD', KEYS[position] }
  if ARGV[at] ~= '' then
    command[3], command[4], command[5] = 'MAXLEN', '~', ARGV[at]
  end
  command[#command + 1] = '*'
  local size = tonumber(ARGV[at + 1])
  for offset = 1, size do command[#command + 1] = ARGV[at + 1 + offset] end
  redis.call(unpack(command))
  at = at + 2 + size
end

redis.call('XACK', source, group, id)
if ARGV[5] == '1' then redis.call('XDEL', source, id) end
return 1
