-- Frees the lock, leaves the line, and wakes the waiter whose turn it is.
-- Returns 1 if the server held the lock, else 0.
-- KEYS: 1 the lock, 2 its tombstone for this token, 3 its line
-- ARGV: 1 the lock's value, 2 for how long an acquire or a refresh of this token
--       may still arrive (ms), which must take nothing, "0" if there is none,
--       3 "1" if it has waited

local holder = redis.call('GET', KEYS[1])
local held = holder == ARGV[1]
if held then
  redis.call('DEL', KEYS[1])
end
if ARGV[2] ~= '0' then
  redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
end
if ARGV[3] == '1' then
  local token = string.match(ARGV[1], '^%S+')
  redis.call('ZREM', KEYS[3], token)
  redis.call('DEL', KEYS[3] .. ':' .. token)
end
if held or not holder then
  local head = first(KEYS[3])
  if head then
    redis.call('PUBLISH', 'swanlock:wake:' .. string.match(head, '^[^.]+'), head)
  end
end
return held and 1 or 0
