-- first returns the token of the waiter whose turn it is, or nil. Those before it
-- that have not been heard of for a while are taken out of the line.
local function first(line)
  while true do
    local head = redis.call('ZRANGE', line, 0, 0)[1]
    if not head or redis.call('EXISTS', line .. ':' .. head) == 1 then
      return head
    end
    redis.call('ZREM', line, head)
  end
end
