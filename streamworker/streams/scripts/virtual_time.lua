-- Stands in front of the scripts where a test moves the time: TIME is what the test has written down.
local server = redis
local redis = setmetatable({}, { __index = server })
redis.call = function(command, ...)
  if command ~= 'TIME' then return server.call(command, ...) end
  local now = tonumber(server.call('GET', 'streamworker:testing:now'))
  return { math.floor(now / 1000), now % 1000 * 1000 }
end
