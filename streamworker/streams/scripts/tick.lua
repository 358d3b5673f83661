-- Publish what a schedule says at a tick, unless somebody has published it.
-- KEYS: the schedule's last tick, its stream. ARGV: the tick in ms ('' only looks), max length ('' for none), then the entry's fields;
-- without fields the tick counts as done. Answers: the server's ms, the last tick, the entry's id if this call has added it.
local AHEAD = 3600000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(ms) return string.format('%.0f', ms) end

local stored = redis.call('GET', KEYS[1]) or ''
local last = tonumber(stored)
-- The server's clock was wrong by more than that, and nobody is to wait until it is as late again.
if last and last > now + AHEAD then last = nil end

if ARGV[1] == '' then
  if not last then
    -- Seen for the first time: it begins with the next tick.
    redis.call('SET', KEYS[1], text(now))
    last = now
  end
  return { now, last, false }
end

local tick = tonumber(ARGV[1])
if last and last >= tick then return { now, last, false } end

-- What remembers the tick is written first, and taken back if the entry is refused: an error undoes nothing.
redis.call('SET', KEYS[1], text(tick))
local id = false
if #ARGV > 2 then
  local command = { 'XADD', KEYS[2] }
  if ARGV[2] ~= '' then
    command[3], command[4], command[5] = 'MAXLEN', '~', ARGV[2]
  end
  command[#command + 1] = '*'
  for position = 3, #ARGV do command[#command + 1] = ARGV[position] end
  id = redis.pcall(unpack(command))
  if type(id) == 'table' then
    redis.call('SET', KEYS[1], stored)
    return id
  end
end
return { now, tick, id }
