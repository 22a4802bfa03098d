-- What is decided of accounts that are up to date, and the answers; put after books.lua.

local function off_table(now) return cmsgpack.pack({'clock', now}) end

local function resets(account)
  if account.demand[9] then return drained(account) end
  return account.used > 0 and released(account, account.oldest) or 0
end

local function balances(found)
  local result = {}
  for i, account in ipairs(found) do result[i] = {account.used, account.held, resets(account)} end
  return result
end

local function granted(output, found) return cmsgpack.pack({'grant', output, balances(found)}) end

local function nothing() return cmsgpack.pack({'nothing'}) end

-- The largest output in least..want that every hard demand has room for.
local function fit(found, fixed, want, least)
  local output = want
  for i, account in ipairs(found) do
    local demand = account.demand
    if not demand[4] then
      local room = demand[1] - account.used - account.held - fixed[i]
      if room < 0 or room < least * demand[3] then return nil end
      if room < output * demand[3] then output = math.floor(room / demand[3]) end
    end
  end
  return output
end

local function wait(account, needed)
  if needed > account.demand[1] then return NEVER, resets(account) end
  local lack = needed + account.used - account.demand[1]
  if lack <= 0 then return PATIENCE, resets(account) end
  if account.demand[9] then
    local time = drain(account.demand, lack, account.part)
    return time, account.at + time
  end
  local numbers = buckets(account)
  local values = amounts(account, numbers)
  for i, bucket in ipairs(numbers) do
    lack = lack - tonumber(values[i] or 0)
    if lack <= 0 then
      local free = released(account, bucket)
      return free - account.at, free
    end
  end
end

-- Name the demand that takes longest to have room.
local function refuse(found, fixed, least)
  local longest, answer = -1, nil
  for i, account in ipairs(found) do
    local demand = account.demand
    local needed = fixed[i] + least * demand[3]
    if not demand[4] and needed > demand[1] - account.used - account.held then
      local time, free = wait(account, needed)
      local rank = time == NEVER and math.huge or time
      if rank > longest then
        longest = rank
        answer = {'refusal', i - 1, needed, {account.used, account.held, free}, time}
      end
    end
  end
  return cmsgpack.pack(answer)
end
