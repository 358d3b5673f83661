-- What was trimmed away while it was pending, where we remove entries ourselves, too: who drops such an entry from the pending list writes
-- it down, beside what was settled. In front of every script that may, or that asks.
-- Nothing about it may hold up anything, hence pcall.
local function witness(memory, id)
  local time = redis.call('TIME')
  -- As if it were of tomorrow, so that it outlasts what is settled meanwhile.
  redis.pcall('ZADD', memory, time[1] * 1000 + 86400000, 'trimmed:' .. id)
  redis.pcall('PEXPIRE', memory, 86400000)
end

local function was_trimmed(memory, id)
  return type(redis.pcall('ZSCORE', memory, 'trimmed:' .. id)) == 'string'
end
