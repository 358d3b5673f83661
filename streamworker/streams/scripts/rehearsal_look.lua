-- What there is to do in some groups, asked in one step, because an entry that moves between two questions is seen by neither.
-- KEYS: for each group its set of due retries, its retry stream, its stream. ARGV: the consumer, its lease in ms, for each group its name,
-- and 1 where nobody reads for it now.
-- Answers how much is due, how many pending entries of others have lapsed, 1 when anything is undelivered, how many entries are pending with
-- the consumer, and the sets of all that is scheduled: the database is the test's alone.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due, lapsed, fresh, held = 0, 0, 0, 0

local function look(stream, group, held_up)
  if redis.call('EXISTS', stream) == 0 then return end
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for position = 1, #row, 2 do info[row[position]] = row[position + 1] end
    if info['name'] == group then
      local unread = redis.call('XRANGE', stream, '(' .. info['last-delivered-id'], '+', 'COUNT', 1)
      if #unread > 0 and not held_up then fresh = 1 end
      held = held + #redis.call('XPENDING', stream, group, '-', '+', 100000, ARGV[1])
      lapsed = lapsed + #redis.call('XPENDING', stream, group, 'IDLE', ARGV[2], '-', '+', 100)
    end
  end
end

for number = 1, #KEYS / 3 do
  local group, held_up = ARGV[2 * number + 1], ARGV[2 * number + 2] == '1'
  due = due + redis.call('ZCOUNT', KEYS[3 * number - 2], '-inf', now)
  look(KEYS[3 * number - 1], group, held_up)
  look(KEYS[3 * number], group, held_up)
end
local scheduled = redis.call('KEYS', '*:scheduled')
for _, key in ipairs(scheduled) do due = due + redis.call('ZCOUNT', key, '-inf', now) end
return { due, lapsed, fresh, held, scheduled }
