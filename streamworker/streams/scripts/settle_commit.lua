-- Acknowledge an entry and do what its handler gathered, together or not at all. Whoever finishes first commits.
-- KEYS: the fence's two, then the key of each command.
-- ARGV: the fence's, then for each command: its name, how many values follow the key, values … REPLY is an XADD with these fields to a
-- stream that is there; where none is, nobody waits for it any more.
-- Answers 1, or 0 when the entry was settled by somebody else (then nothing was written).
if not unsettled() then return 0 end

-- A script's error does not undo what it wrote before, so whatever a command could be refused for is looked for before the first write:
-- a missing right, another type of key, a text where a number belongs.
local HOLDS = {
  XADD = 'stream', HSET = 'hash', HDEL = 'hash', HINCRBY = 'hash', ZADD = 'zset', ZREM = 'zset', SADD = 'set', SREM = 'set',
  RPUSH = 'list', LPUSH = 'list', INCRBY = 'string',
}
local REMOVES = { HDEL = true, ZREM = true, SREM = true }
local LARGEST = 9.2e18 -- a little below 2^63, because Lua counts in doubles

-- Try each command in a form that the stream's own key refuses: any other refusal is that of the right to it. Not the first one, before
-- which nothing is written.
local tried = { [ARGV[6] or ''] = true }
local function missing_right(name)
  if tried[name] then return nil end
  tried[name] = true
  local form = ({
    XADD = { 'ID', '0-0', '', '' }, SET = { 'syntax', '', 'XX', 'NX' }, PEXPIRE = { 'integer', '-' },
    HSET = { 'WRONGTYPE', '', '' }, HINCRBY = { 'WRONGTYPE', '', 1 }, ZADD = { 'WRONGTYPE', 1, '' }, INCRBY = { 'WRONGTYPE', 1 },
  })[name] or { 'WRONGTYPE', '' }
  local answer = redis.pcall(name, source, unpack(form, 2))
  if type(answer) == 'table' and answer['err'] and not string.find(tostring(answer['err']), form[1], 1, true) then return answer end
end

-- What each key holds, commands before included. `fresh`: nothing that was on the server counts any more.
local known = {}
local function number_before(key, field, name)
  local number = known[key].numbers[field]
  if number == nil and not known[key].fresh then
    if name == 'INCRBY' then number = redis.call('GET', key) else number = redis.call('HGET', key, field) end
  end
  return number or '0'
end

local function objection(command)
  local name, key = command[1], command[2]
  if not known[key] then known[key] = { kind = redis.call('TYPE', key)['ok'], numbers = {} } end
  local state, wanted = known[key], HOLDS[name]
  if name == 'SET' then known[key] = { kind = 'string', fresh = true, numbers = { [''] = command[3] } } end
  if name == 'PEXPIRE' and command[3] == '0' then known[key] = { kind = 'none', fresh = true, numbers = {} } end
  if not wanted then return nil end
  if state.kind ~= wanted and state.kind ~= 'none' then
    return 'WRONGTYPE cannot ' .. (name == 'XADD' and 'publish to ' or name .. ' ') .. key .. ': it holds a ' .. state.kind
  end
  if not REMOVES[name] then state.kind = wanted end
  if name == 'HSET' then
    for at = 3, #command, 2 do state.numbers[command[at]] = command[at + 1] end
  elseif name == 'HDEL' then
    for at = 3, #command do state.numbers[command[at]] = '0' end
  elseif name == 'INCRBY' or name == 'HINCRBY' then
    local field = name == 'HINCRBY' and command[3] or ''
    local before = number_before(key, field, name)
    if type(before) == 'string' and before ~= '0' and not string.find(before, '^%-?[1-9]%d*$') then
      return 'WRONGTYPE cannot ' .. name .. ' ' .. key .. ': it holds no whole number'
    end
    local sum = tonumber(before) + tonumber(command[#command])
    if math.abs(tonumber(before)) > LARGEST or math.abs(sum) > LARGEST then
      return 'WRONGTYPE cannot ' .. name .. ' ' .. key .. ': the number would be too large'
    end
    state.numbers[field] = sum
  end
end

local commands, at = {}, 6
for position = 3, #KEYS do
  local size = tonumber(ARGV[at + 1])
  local command = { ARGV[at], KEYS[position], unpack(ARGV, at + 2, at + 1 + size) }
  if command[1] == 'REPLY' then
    command = nil
    if redis.call('TYPE', KEYS[position])['ok'] == 'stream' then
      command = { 'XADD', KEYS[position], 'NOMKSTREAM', 'MAXLEN', '~', 1000, '*', unpack(ARGV, at + 2, at + 1 + size) }
    end
  end
  if command then
    local refusal = missing_right(command[1])
    if refusal then return refusal end
    local against = objection(command)
    if against then return redis.error_reply(against) end
    commands[#commands + 1] = command
  end
  at = at + 2 + size
end

for _, command in ipairs(commands) do redis.call(unpack(command)) end

acknowledge()
return 1
