-- Accounts whose window leaks, as core/windows.py's Smooth; put before books.lua.

local FOREVER = 100000000000000

-- Whole units that flow off, and the part of the next; exact below 2^53 for widths up to a day.
local function flow(demand, elapsed, part)
  local width, units = demand[5], demand[9]
  local over, rest = elapsed % width, units % width
  local left = over * rest + part
  local gone = math.floor(elapsed / width) * units + over * ((units - rest) / width)
  return gone + math.floor(left / width), left % width
end

-- Milliseconds until an amount has flowed off.
local function drain(demand, amount, part)
  local width, units = demand[5], demand[9]
  local over = amount % units
  local rest = math.ceil((over * width - part) / units)
  return math.min(FOREVER, (amount - over) / units * width + rest)
end

-- When all that is used has flowed off; 0 when nothing is.
local function drained(account)
  if account.used == 0 then return 0 end
  return account.at + drain(account.demand, account.used, account.part)
end

-- How long the key must be kept for what it may come to have used.
local function lasting(account)
  if not account.demand[9] then return 0 end
  return drain(account.demand, account.used + account.held, 0)
end

local function level(account, used)
  account.used = math.max(0, used)
  local there = account.used > 0 and account.current or nil
  account.oldest, account.newest = there, there
  if not there then account.part = 0 end
end

local function leak(account)
  local gone
  local elapsed = math.max(0, account.at - account.oldest)
  gone, account.part = flow(account.demand, elapsed, account.part)
  level(account, account.used - gone)
end

-- Take back what was charged at a moment, less what has flowed off since.
local function unleak(account, moment, amount, at)
  local gone = flow(account.demand, math.max(0, at - moment), account.demand[5] - 1)
  level(account, account.used - math.max(0, amount - gone))
end

