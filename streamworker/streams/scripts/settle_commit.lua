-- Acknowledge an entry and publish what its handler gathered, together or not at all. Whoever finishes first commits.
-- KEYS: the fence's two, then one target stream for each publish.
-- ARGV: the fence's, then for each publish: max length ('' for none, 'reply' for one that goes only to a stream that is there), number of values, values …
-- Answers 1, or 0 when the entry was settled by somebody else (then nothing was published).
if not unsettled() then return 0 end

-- A script's error does not undo what it wrote before, so every target is looked at before the first write.
local at, kinds = 6, {}
for position = 3, #KEYS do
  local kind = redis.call('TYPE', KEYS[position])['ok']
  kinds[position] = kind
  if kind ~= 'stream' and kind ~= 'none' and ARGV[at] ~= 'reply' then
    return redis.error_reply('WRONGTYPE cannot publish to ' .. KEYS[position] .. ': it holds a ' .. kind)
  end
  at = at + 2 + tonumber(ARGV[at + 1])
end

at = 6
for position = 3, #KEYS do
  local command = { 'XADD', KEYS[position] }
  local is_reply = ARGV[at] == 'reply'
  if is_reply then
    for _, word in ipairs({ 'NOMKSTREAM', 'MAXLEN', '~', 1000 }) do command[#command + 1] = word end
  elseif ARGV[at] ~= '' then
    command[3], command[4], command[5] = 'MAXLEN', '~', ARGV[at]
  end
  command[#command + 1] = '*'
  local size = tonumber(ARGV[at + 1])
  for offset = 1, size do command[#command + 1] = ARGV[at + 1 + offset] end
  if not is_reply or kinds[position] == 'stream' then redis.call(unpack(command)) end
  at = at + 2 + size
end

acknowledge()
return 1
