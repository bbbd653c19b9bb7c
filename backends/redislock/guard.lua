-- Prepended to the scripts, all of which may give a vote. In each:
-- KEYS: 1 the lock, 2 its tombstone for this token, 3 its fence, 4 its line,
--       and, unless WithoutQuarantine: 5 born, 6 quarantine
-- ARGV: 1 "cached" if the server had the script in its cache, else "whole", or
--       "first" if it may be the first that the server was ever sent,
--       2 the quarantine (ms), 3 the lock's value: its token, a space, the owner;
--       then the script's own

local value = ARGV[3]
local holder, tombstone, born, quarantine = unpack(KEYS[5] and
  redis.call('MGET', KEYS[1], KEYS[2], KEYS[5], KEYS[6]) or redis.call('MGET', KEYS[1], KEYS[2]))

-- A server that has restarted, or has taken over from another, has no scripts:
-- they are neither persisted nor replicated. Then this text is sent whole, which
-- puts it into the cache, and in that same step it is looked which run of the
-- server knew the locks. Where born is missing, they may have been flushed.
if KEYS[5] and (ARGV[1] ~= 'cached' or not born) then
  redis.call('DEL', KEYS[5]) -- An error below leaves the server unknown.
  local info = redis.pcall('INFO', 'server')
  local major = type(info) == 'string' and tonumber(string.match(info, 'redis_version:(%d+)'))
  local run = major and string.match(info, 'run_id:(%w+)')
  local up = run and tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
  if not up or major < 7 then
    return redis.error_reply('NOQUARANTINE it takes Redis 7 or later, and INFO in scripts')
  end
  local unused = ARGV[1] == 'first' and not born and up * 1000 >= tonumber(ARGV[2])
  if born ~= run and not unused then
    redis.call('SET', KEYS[6], run, 'PX', ARGV[2])
    quarantine = run
  end
  redis.call('SET', KEYS[5], run)
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
