-- Gives the server's vote, or joins the line. ARGV: 6 for how long the caller's
-- place in the line is kept (ms), "0" if it does not wait.
-- Returns granted and the fence; held, by what value, and for how many ms;
-- waited, by whom; abstains and for how many ms; or released.

local line, presence = KEYS[4], ARGV[6]

-- Our own token is a grant, whose answer was lost.
if holder ~= value then
  if tombstone then
    return {'released'}
  end
  local head, token = first(line), string.match(value, '^%S+')
  if holder or quarantine or head and head ~= token then
    if presence ~= '0' then
      if not redis.call('ZSCORE', line, token) then
        local last = redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2] or 0
        redis.call('ZADD', line, last + 1, token)
      end
      redis.call('SET', line .. ':' .. token, '', 'PX', presence)
      redis.call('PEXPIRE', line, presence)
    end
    if holder then
      return {'held', holder, redis.call('PTTL', KEYS[1])}
    elseif quarantine then
      return {'abstains', '', redis.call('PTTL', KEYS[6])}
    end
    return {'waited', head}
  end
  if head then
    redis.call('ZREM', line, token)
    redis.call('DEL', line .. ':' .. token)
  end
end
redis.call('SET', KEYS[1], value, 'PX', ARGV[4])
if ARGV[5] == '0' then
  return {'granted', '0'}
elseif holder then
  return {'granted', fenced(tonumber(ARGV[5]))}
end
return {'granted', fenced(math.max(tonumber(ARGV[5]), 1 + tonumber(redis.call('GET', KEYS[3]) or 0)))}
