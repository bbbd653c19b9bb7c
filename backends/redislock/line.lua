-- first returns the token of the waiter whose turn it is, and what acquire.lua has
-- written down for it, or nil. Those before it that have not been heard of for a
-- while are taken out of the line.
local function first(line)
  while true do
    local head = redis.call('ZRANGE', line, 0, 0)[1]
    local place = head and redis.call('GET', line .. ':' .. head)
    if not head or place then
      return head, place
    end
    redis.call('ZREM', line, head)
  end
end

-- leave takes a waiter out of the line.
local function leave(line, token)
  redis.call('ZREM', line, token)
  redis.call('DEL', line .. ':' .. token)
end
