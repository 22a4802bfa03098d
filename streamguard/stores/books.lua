-- Accounts and reservations as core/ledger.py has them; put before every operation.
-- Times are whole milliseconds, amounts whole numbers.
--
-- account  hash  u used, h held, o and n oldest and newest bucket, e the earliest expiry or
--                sooner, x until when the key is kept, b<bucket> its amount, h<id> what a
--                reservation holds: "amount", or "amount:bucket" if charged up front; where the
--                window leaks no b, o and n are when u was taken, p the part of the next unit
-- holds    zset  reservation id, scored by its expiry
-- record   string, packed {state, granted, due, demands as JSON}; due as in core/books.py
-- demand   {capacity, fixed, rate, soft, width, span, starts, keep, leak}; where it leaks, leak
--          units flow off each width

local HELD, DONE_STATE = 0, 1
local LATE, DONE, PATIENCE, MAX_AMOUNT = 86400000, 120000, 1000, 281474976710656
local NEVER = -1

local function whole(number) return string.format('%.0f', number) end

local function clock(given)
  if given then return given end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function up_front(demand) return demand[3] == 0 and demand[5] >= 0 end

-- Oldest bucket that counts, the one being filled, and (calendar) its end; nil off the table.
local function place(demand, now)
  local width, span, starts = demand[5], demand[6], demand[7]
  if width < 0 then return 0, 0 end
  if demand[9] then return now, now end
  if width > 0 then return math.floor((now - span) / width), math.floor(now / width) end
  for i = #starts - 1, 1, -1 do
    if starts[i] <= now and now < starts[i + 1] then return starts[i], starts[i], starts[i + 1] end
  end
end

local function released(account, bucket)
  if account.ends then return account.ends end
  return (bucket + 1) * account.demand[5] + account.demand[6]
end

-- The buckets an account may have: a calendar has one, a sliding window a short run.
local function buckets(account)
  if account.demand[5] == 0 then return {account.newest} end
  local found = {}
  for bucket = account.oldest, account.newest do found[#found + 1] = bucket end
  return found
end

local function amounts(account, numbers)
  local names = {}
  for i, bucket in ipairs(numbers) do names[i] = 'b' .. whole(bucket) end
  return redis.call('HMGET', account.key, unpack(names)), names
end

-- What is charged and held is written by save, in one call.
local function charge(account, amount)
  if amount <= 0 or account.demand[5] < 0 then return end
  account.bucket = account.bucket + amount
  account.charged = not account.demand[9]
  account.used = account.used + amount
  account.oldest = account.oldest or account.current
  account.newest = account.current
end

-- Read the buckets again: drops what no longer counts, answers what a clock that went back
-- charged in its future.
local function scan(account)
  local numbers = buckets(account)
  local values, names = amounts(account, numbers)
  local gone, moved = {}, 0
  account.used, account.oldest, account.newest = 0, nil, nil
  for i, bucket in ipairs(numbers) do
    local amount = tonumber(values[i])
    if bucket == account.current then amount = account.bucket end
    if amount and (amount == 0 or bucket < account.first or bucket > account.current) then
      gone[#gone + 1] = names[i]
      if bucket > account.current then moved = moved + amount end
    elseif amount then
      account.used = account.used + amount
      account.oldest, account.newest = account.oldest or bucket, bucket
    end
  end
  if #gone > 0 then redis.call('HDEL', account.key, unpack(gone)) end
  return moved
end

local function roll(account)
  if not account.oldest then return end
  if account.demand[9] then return leak(account) end
  if account.oldest >= account.first and account.newest <= account.current then return end
  charge(account, scan(account))
end

local function refund(account, bucket, amount, at)
  if account.demand[9] then return unleak(account, bucket, amount, at) end
  local name = 'b' .. whole(bucket)
  local current = bucket == account.current
  local there = current and account.bucket or tonumber(redis.call('HGET', account.key, name) or 0)
  local back = math.min(amount, there)
  if back <= 0 then return end
  account.used = account.used - back
  if current then
    account.bucket, account.charged = there - back, there > back
  else
    redis.call('HINCRBY', account.key, name, whole(-back))
  end
  if back == there then scan(account) end
end

local function hold(account, id, due, amount, bucket)
  account.entry = bucket and whole(amount) .. ':' .. whole(bucket) or whole(amount)
  account.written = 'h' .. id
  redis.call('ZADD', account.holds, whole(due), id)
  if account.held == 0 then
    local keep = math.max(2 * account.demand[8], account.kept - account.at)
    redis.call('PEXPIRE', account.holds, whole(keep))
  end
  if not bucket then account.held = account.held + amount end
  account.earliest = math.min(account.earliest or due, due)
end

-- Take a reservation's hold out of an account: what it was, and where it was charged up front.
local function drop(account, id, entry)
  if not entry then return end
  redis.call('HDEL', account.key, 'h' .. id)
  redis.call('ZREM', account.holds, id)
  local amount, bucket = string.match(entry, '^(%d+):?(.*)$')
  if bucket ~= '' then return tonumber(amount), tonumber(bucket) end
  account.held = account.held - tonumber(amount)
  return tonumber(amount)
end

local function give_back(account, id, entry, ended)
  local amount, bucket = drop(account, id, entry)
  if bucket then refund(account, bucket, amount, ended) end
end

local function sweep(account)
  if not account.earliest or account.earliest > account.at then return end
  local expired = redis.call('ZRANGEBYSCORE', account.holds, '-inf', whole(account.at),
                             'WITHSCORES')
  for i = 1, #expired, 2 do
    local id = expired[i]
    give_back(account, id, redis.call('HGET', account.key, 'h' .. id), tonumber(expired[i + 1]))
    if id == account.id then account.entry = nil end
  end
  account.earliest = tonumber(redis.call('ZRANGE', account.holds, 0, 0, 'WITHSCORES')[2] or '')
end

-- Whether all accounts still have the hold: a clock that went back revives a record, not these.
local function all_hold(found)
  for _, account in ipairs(found) do
    if not account.entry then return false end
  end
  return true
end

local function open(key, holds, demand, id, now)
  local first, current, ends = place(demand, now)
  if not current then return nil end
  local bucket = demand[9] and 'p' or 'b' .. whole(current)
  local row = redis.call('HMGET', key, 'u', 'h', 'o', 'n', 'e', 'x', bucket, 'h' .. id)
  return {
    key = key, holds = holds, demand = demand, id = id, at = now,
    first = first, current = current, ends = ends,
    used = tonumber(row[1] or 0), held = tonumber(row[2] or 0),
    oldest = tonumber(row[3] or ''), newest = tonumber(row[4] or ''),
    earliest = tonumber(row[5] or ''), kept = tonumber(row[6] or 0),
    bucket = tonumber(row[7] or 0), part = tonumber(row[7] or 0), entry = row[8],
  }
end

-- All accounts of the call, up to date; nothing when a calendar is off its table.
local function open_all(demands, id, now)
  local found = {}
  for i, demand in ipairs(demands) do
    found[i] = open(KEYS[2 * i], KEYS[2 * i + 1], demand, id, now)
    if not found[i] then return nil end
  end
  for _, account in ipairs(found) do
    roll(account)
    sweep(account)
  end
  return found
end

local function text(number) return number and whole(number) or '' end

local function save(account)
  local empty = account.used == 0 and account.held == 0
  if empty and redis.call('ZCARD', account.holds) == 0 then
    redis.call('DEL', account.key)
    return
  end
  local fields = {'u', whole(account.used), 'h', whole(account.held), 'o', text(account.oldest),
                  'n', text(account.newest), 'e', text(account.earliest)}
  local function put(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if account.demand[9] then put('p', whole(account.part)) end
  if account.charged then put('b' .. whole(account.current), whole(account.bucket)) end
  if account.written then put(account.written, account.entry) end
  local keep = account.demand[8] + lasting(account)
  local stale = account.kept < account.at + keep
  if stale then put('x', whole(account.at + 2 * keep)) end
  redis.call('HSET', account.key, unpack(fields))
  if stale then
    redis.call('PEXPIRE', account.key, whole(2 * keep))
    redis.call('PEXPIRE', account.holds, whole(2 * keep))
  end
end

local function save_all(found)
  for _, account in ipairs(found) do save(account) end
end

local function load(now)
  local packed = redis.call('GET', KEYS[1])
  if not packed then return nil end
  local state, output, due, demands = unpack(cmsgpack.unpack(packed))
  local forgotten = state == HELD and due + LATE or due
  if forgotten <= now then return nil end
  return {state = state, output = output, due = due, demands = demands,
          live = state == HELD and due > now}
end

local function store(record, now)
  local keep = record.due - now + (record.state == HELD and LATE or 0)
  local packed = cmsgpack.pack({record.state, record.output, record.due, record.demands})
  redis.call('SET', KEYS[1], packed, 'PX', whole(math.max(1, keep)))
end

local function finish(record, now)
  record.state, record.due = DONE_STATE, now + DONE
  store(record, now)
end

