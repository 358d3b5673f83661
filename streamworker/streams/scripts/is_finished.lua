-- Whether groups have nothing left to do: asked in one step, because an entry that moves between two questions is seen by neither.
-- KEYS: for each group its set of due retries, their envelopes, its retry stream, its stream. ARGV: the name of each group.
-- Answers 1 when nothing is undelivered, pending, released or waiting for a retry.
local function drained(stream, group)
  if redis.call('EXISTS', stream) == 0 then return false end
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for position = 1, #row, 2 do info[row[position]] = row[position + 1] end
    if info['name'] == group then
      -- Not the server's lag: it is unknown after deletions. And not from behind the last id: there is nothing behind the largest.
      local last = info['last-delivered-id']
      local rest = redis.call('XRANGE', stream, last, '+', 'COUNT', 2)
      return info['pending'] == 0 and (#rest == 0 or (#rest == 1 and rest[1][1] == last))
    end
  end
  return false
end

for number = 1, #ARGV do
  local due, parked, retry, stream = KEYS[4 * number - 3], KEYS[4 * number - 2], KEYS[4 * number - 1], KEYS[4 * number]
  if redis.call('ZCARD', due) > 0 or redis.call('HLEN', parked) > 0 or not drained(retry, ARGV[number]) or not drained(stream, ARGV[number]) then return 0 end
end
return 1
