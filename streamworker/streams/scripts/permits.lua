-- Give out permits to start deliveries: slots in time, no two of them closer than an interval.
-- KEYS: the next free slot in µs. ARGV: µs from slot to slot, µs for which a slot may be given out after its time, how many are wanted,
-- '1' where only all of them together are of use: then they may lie ahead, and their time comes with the last one.
-- Answers, as texts: the server's µs, the first slot, how many were given, the next free slot.
local interval, back, wanted, whole = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function text(number) return string.format('%.0f', number) end

local free = tonumber(redis.call('GET', KEYS[1]) or '') or 0
-- Nobody asks for what lies further ahead than that: the clock has gone back, or the limit was another one.
local ahead = whole and wanted * interval or 0
if free > now + 2 * (ahead + interval) then free = now + ahead + interval end
free = math.max(free, now - back)

local first, count = free, 0
if whole and free <= now + ahead then
  count = wanted
elseif not whole and free <= now then
  count = math.min(wanted, math.floor((now - free) / interval) + 1)
end
if count > 0 then
  free = free + count * interval
  -- From then on it is as if nothing had ever started.
  redis.call('SET', KEYS[1], text(free), 'PX', math.ceil((free + back - now) / 1000) + 1000)
end
return { text(now), text(first), count, text(free) }
