-- Frees the lock, leaves the line, and serves the waiter whose turn it is.
-- Returns 1 if the server held the lock, else 0.
-- ARGV: 4 for how long an acquire or a refresh of this token may still arrive
--       (ms), which must take nothing, "0" if there is none, 5 "1" if it has waited,
--       6 for how long (ms) the next one's place must still be kept, if the lock is
--       given to it without its asking

local line, held = KEYS[4], holder == value
if held then
  redis.call('DEL', KEYS[1])
end
if ARGV[4] ~= '0' then
  redis.call('SET', KEYS[2], '', 'PX', ARGV[4])
end
if ARGV[5] == '1' then
  leave(line, string.match(value, '^%S+'))
end
local head, place = nil, nil
if held or not holder then
  head, place = first(line)
end
if head then
  -- It gets the lock if it can be told so and has just been heard of: its host may be
  -- cut off. Its lease begins now, and so after it has asked the question that it is
  -- told. Otherwise it is woken, and asks.
  local channel = 'swanlock:wake:' .. string.match(head, '^[^.]+')
  local question, lease, fence, next = string.match(place, '^(%S+) (%S+) (%S+) (.*)$')
  -- This server's own listeners are counted. Others may hear too, on a replica or
  -- another node of a cluster, but later.
  local listeners = question and redis.pcall('PUBSUB', 'NUMSUB', channel)[2] or 0
  if held and listeners > 0 and redis.call('PTTL', line .. ':' .. head) > tonumber(ARGV[6])
    and not look(false) and not quarantine then
    leave(line, head)
    redis.call('PUBLISH', channel, table.concat({head, question, grant(next, lease, fence)}, ' '))
  else
    redis.call('PUBLISH', channel, head)
  end
end
return held and 1 or 0
