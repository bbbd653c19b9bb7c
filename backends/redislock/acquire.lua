-- Gives the server's vote, or joins the line. ARGV: 4 the lease (ms), 5 the fence,
-- "0" for none, 6 for how long the caller's place in the line is kept (ms), "0" if
-- it does not wait, 7 the number of this question, if release.lua may give it the
-- lock later, or else "".
-- Returns granted and the fence; held, by what value, and for how many ms;
-- waited, by whom; abstains and for how many ms; or released.

local line, presence = KEYS[4], ARGV[6]

-- Our own token is a grant, of which we have not heard.
if holder ~= value then
  if tombstone then
    return {'released'}
  end
  -- Before the first acquire of all no lock was taken here.
  local unable = not holder and look(ARGV[1] == 'whole')
  if unable then
    return unable
  end
  local head = first(line)
  local token = (head or presence ~= '0') and string.match(value, '^%S+')
  if holder or quarantine or head and head ~= token then
    if presence ~= '0' then
      if not redis.call('ZSCORE', line, token) then
        local last = redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2] or 0
        redis.call('ZADD', line, last + 1, token)
      end
      local place = ARGV[7] == '' and '' or table.concat({ARGV[7], ARGV[4], ARGV[5], value}, ' ')
      redis.call('SET', line .. ':' .. token, place, 'PX', presence)
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
    leave(line, token)
  end
end
if not holder then
  return {'granted', grant(value, ARGV[4], ARGV[5])}
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'granted', ARGV[5] == '0' and '0' or fenced(ARGV[5], 0)}
