-- Acknowledge entries, and delete those that no group needs any more.
-- KEYS: the stream. ARGV: group, 1 when the server may know XACKDEL, entry id …
-- Answers: how many were still pending, 1 when the server knows XACKDEL.
-- Not fenced: a late finisher's acknowledgement only prevents a third run.
local stream, group = KEYS[1], ARGV[1]
local ids = { unpack(ARGV, 3) }

-- Eight at a time, because the first servers that knew the command wrote past its end with more (CVE-2025-62507).
local function natively()
  local acked = 0
  for start = 1, #ids, 8 do
    local last = math.min(start + 7, #ids)
    local answer = redis.pcall('XACKDEL', stream, group, 'ACKED', 'IDS', last - start + 1, unpack(ids, start, last))
    if answer['err'] then return nil end
    for _, what in ipairs(answer) do
      if what ~= -1 then acked = acked + 1 end
    end
  end
  return acked
end

if ARGV[2] == '1' then
  local acked = natively()
  if acked then return { acked, 1 } end
end
local acked = redis.call('XACK', stream, group, unpack(ids))
retire(stream, group, ids)
return { acked, 0 }
