-- Read on in a stream without a group, and find out whether something has gone before it was read.
-- KEYS: the stream. ARGV: the last id seen ('$': from now on), how many entries had been added up to it (-1: nobody knows, -2: the stream
-- was not seen yet), how many entries at most.
-- Answers: the same two for the next call, how many entries were lost (-1: perhaps some), the entries.
local last, seen, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

if redis.call('EXISTS', KEYS[1]) == 0 then
  -- Whatever is in the next stream of this name is new.
  if last == '$' or seen ~= -2 then last = '0-0' end
  return { last, -2, 0, {} }
end

local info = {}
local told = redis.call('XINFO', 'STREAM', KEYS[1])
for position = 1, #told, 2 do info[told[position]] = told[position + 1] end
local newest, length = info['last-generated-id'], info['length']
local added = info['entries-added'] or -1

if last == '$' then return { newest, added, 0, {} } end
-- A server took over that does not have all of the stream: there is nothing to go on from but its end.
if is_before(newest, last) then return { newest, added, -1, {} } end

local entries = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', most)
local first = info['first-entry']
local cut = not first or is_before(last, first[1])
local lost = 0
if cut and seen ~= -2 and newest ~= last then
  lost = -1
  if seen >= 0 and added >= seen then lost = added - seen - length end
end

local count = #entries
if count < most then
  seen = added
elseif cut and added >= 0 then
  seen = added - (length - count)
elseif seen >= 0 then
  seen = seen + count
else
  seen = -1
end
if count > 0 then
  last = entries[count][1]
elseif cut then
  last = newest
end
return { last, seen, lost, entries }
