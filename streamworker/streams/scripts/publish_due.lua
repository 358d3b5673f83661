-- Add scheduled entries that are due to their streams; and tell which handlers are paused, because this is asked once a second anyway.
-- KEYS: for each stream the sorted set of due times, the hash of entries, the stream; then the hashes of pauses.
-- ARGV: how many of each stream at most, how many streams.
-- Answers: ms until the next one is due (-1: none waits), what each hash of pauses holds (or an error's text), then for each stream that
-- has something to tell {its number, how many were added, how many could not be read, an error or ''}. An error of one stream must not
-- hold up another one, hence pcall.
local HOUR = 3600000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function unpacked(entry)
  local newline = assert(string.find(entry, '\n', 1, true))
  local head = cjson.decode(string.sub(entry, 1, newline))
  local values, at = {}, newline + 1
  while at <= #entry do
    local colon = assert(string.find(entry, ':', at, true))
    local size = assert(tonumber(string.sub(entry, at, colon - 1)))
    assert(colon + size <= #entry)
    values[#values + 1] = string.sub(entry, colon + 1, colon + size)
    at = colon + 1 + size
  end
  assert(#values > 0 and #values <= 7000 and #values % 2 == 0) -- more are no entry of ours, and than can be unpacked
  return head, values
end

local function checked(reply)
  if type(reply) == 'table' and reply['err'] then error({ refused = reply['err'] }) end
  return reply
end

local function run(...) return checked(redis.pcall(...)) end

-- Somebody has removed due times: each entry says when it is due. Any of them at each turn, until none is missing.
local function mend(due, entries)
  local page = run('HRANDFIELD', entries, 200, 'WITHVALUES')
  for position = 1, #page, 2 do
    local when = string.match(page[position + 1], '^{"due_ms": (%d+)')
    run('ZADD', due, 'NX', when or now + HOUR, page[position])
  end
end

local function add(stream, head, values)
  local command = { 'XADD', stream }
  if type(head['max_length']) == 'number' then
    for _, word in ipairs({ 'MAXLEN', '~', string.format('%.0f', head['max_length']) }) do command[#command + 1] = word end
  end
  command[#command + 1] = '*'
  for _, value in ipairs(values) do command[#command + 1] = value end
  run(unpack(command))
end

-- What is refused stays where it is: adding comes first, forgetting last.
local function publish(due, entries, stream, told)
  if run('HLEN', entries) > run('ZCARD', due) then mend(due, entries) end
  for _, handle in ipairs(run('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, ARGV[1])) do
    local entry = run('HGET', entries, handle)
    local fine, head, values = false, nil, nil
    if entry then fine, head, values = pcall(unpacked, entry) end
    if fine then
      add(stream, head, values)
      run('HDEL', entries, handle)
      run('ZREM', due, handle)
      told[2] = told[2] + 1
    else
      told[3] = told[3] + 1
      if entry then run('ZADD', due, now + HOUR, handle) else run('ZREM', due, handle) end
    end
  end
  local first = run('ZRANGE', due, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, tonumber(first[2]) - now) or -1
end

local streams, pauses = tonumber(ARGV[2]), {}
for position = 3 * streams + 1, #KEYS do
  local held = redis.pcall('HGETALL', KEYS[position])
  pauses[#pauses + 1] = held['err'] and tostring(held['err']) or held
end

local answer = { -1, pauses }
for number = 1, streams do
  local told = { number, 0, 0, '' }
  local fine, wait = pcall(publish, KEYS[3 * number - 2], KEYS[3 * number - 1], KEYS[3 * number], told)
  if not fine then
    told[4] = type(wait) == 'table' and wait['refused'] or tostring(wait)
  elseif wait >= 0 and (answer[1] < 0 or wait < answer[1]) then
    answer[1] = wait
  end
  if told[2] > 0 or told[3] > 0 or told[4] ~= '' then answer[#answer + 1] = told end
end
return answer
