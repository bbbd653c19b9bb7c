-- Prepended to the scripts, all of which may give a vote. In each:
-- KEYS: 1 the lock, 2 its tombstone for this token, 3 its fence, 4 its line,
--       and, unless WithoutQuarantine: 5 born, 6 quarantine
-- ARGV: 1 "cached" if the server had the script in its cache, else "whole",
--       2 the quarantine (ms), 3 the lock's value: its token, a space, the owner;
--       then the script's own

local value = ARGV[3]
local holder, tombstone, born, quarantine = unpack(KEYS[5] and
  redis.call('MGET', KEYS[1], KEYS[2], KEYS[5], KEYS[6]) or redis.call('MGET', KEYS[1], KEYS[2]))

-- look begins the quarantine if the server may have forgotten locks: it has
-- restarted, and so is another run than born names, or has taken over from another
-- server, and so has that one's replication id as its second; or born is missing, as
-- after FLUSHALL. It is called before each vote, since nothing that an earlier call
-- found out is certain: that may have been in another database, or have failed
-- halfway. unused says that a server which has run for long enough, and has no born,
-- never had locks. look returns an error if the server cannot be asked.
local function look(unused)
  if not KEYS[5] then
    return nil
  end
  -- Whatever may have made it forget gives it a new replication id, which ends born. So
  -- this looks for that alone, without a pattern: it is a quarter of the cost of a vote.
  local info = redis.pcall('INFO', 'replication')
  if born and type(info) == 'string' and string.find(info, 'master_replid:' .. string.sub(born, -40), 1, true) then
    return nil
  end
  info = redis.pcall('INFO', 'server', 'replication')
  info = type(info) == 'string' and info or ''
  local knownRun, knownSecond = string.match(born or '', '^(%w+):(%w+):%w+$')
  local major, run = string.match(info, 'redis_version:(%d+)'), string.match(info, 'run_id:(%w+)')
  local up, second = string.match(info, 'uptime_in_seconds:(%d+)'), string.match(info, 'master_replid2:(%w+)')
  if not (major and run and up and second) or tonumber(major) < 7 then
    return redis.error_reply('NOQUARANTINE it takes Redis 7 or later, and INFO in scripts')
  end
  -- It is all zeros if there is none, and so again when there was no replica for an
  -- hour; then the first id is new, too.
  local alone = not string.match(second, '[^0]')
  if knownRun ~= run or second ~= knownSecond and not alone then
    if not (unused and not born and alone and tonumber(up) * 1000 >= tonumber(ARGV[2])) then
      redis.call('SET', KEYS[6], run, 'PX', ARGV[2])
      quarantine = run
    end
  end
  redis.call('SET', KEYS[5], table.concat({run, second, string.match(info, 'master_replid:(%w+)')}, ':'))
end

-- fenced stores a fence of at least f, and more above the one that is stored, and
-- returns it.
local function fenced(f, more)
  f = math.max(f, more + tonumber(redis.call('GET', KEYS[3]) or 0))
  local text = string.format('%.0f', f)
  redis.call('SET', KEYS[3], text, 'EX', 86400)
  return text
end

-- grant gives the lock to a value for lease ms, and returns its fence: at least f,
-- and higher than those of all grants before; "0" if f is that.
local function grant(to, lease, f)
  redis.call('SET', KEYS[1], to, 'PX', lease)
  if f == '0' then
    return f
  end
  return fenced(f, 1)
end
