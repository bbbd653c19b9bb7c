-- Restarts the lease, raises the fence, and returns 1 if the server held the
-- lock, else 0. ARGV: 4 the lease (ms), 5 the fence, "0" for none, 6 "1" if a
-- server that has lost the lock, or never had it, shall hold it from now on: it is
-- one of several.

-- Also where the lock is kept: so the quarantine of a server that has restarted begins
-- now, and not when somebody wants the next lock.
local unable = look(false)
if holder ~= value then
  if holder or tombstone or ARGV[6] == '0' then
    return 0
  elseif unable then
    return unable
  elseif quarantine then
    return 0
  end
end
-- A server that is full lets a key's time be set, and what is written after that.
if holder then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
else
  redis.call('SET', KEYS[1], value, 'PX', ARGV[4])
end
if ARGV[5] ~= '0' then
  fenced(ARGV[5], 0)
end
return holder and 1 or 0
