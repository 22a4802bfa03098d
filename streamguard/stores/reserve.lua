-- Hold fixed + g * rate of every demand for the largest g in least..want, or nothing.
-- KEYS: record, then account and holds of each demand.
-- ARGV: packed {now or false, id, demands, ttl, want, least}, demands to remember, as JSON.
local given, id, demands, ttl, want, least = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local known = load(now)
local found = open_all(demands, id, now)
if not found then return off_table(now) end
if known and known.live and all_hold(found) then
  save_all(found)
  return granted(known.output, found)
end
local fixed = {}
for i, demand in ipairs(demands) do fixed[i] = demand[2] end
if known and known.state == DONE_STATE then
  save_all(found)
  if known.demands == '' or #found == 0 then return nothing() end
  local first = found[1]
  local standing = {first.used, first.held, resets(first)}
  return cmsgpack.pack({'refusal', 0, fixed[1] + least * first.demand[3], standing, NEVER})
end
if known then
  for _, account in ipairs(found) do give_back(account, id, account.entry, now) end
end
local output = fit(found, fixed, want, least)
if not output then
  save_all(found)
  return refuse(found, fixed, least)
end
local due = now + ttl
for i, account in ipairs(found) do
  local amount = fixed[i] + output * account.demand[3]
  if up_front(account.demand) then
    charge(account, amount)
    hold(account, id, due, amount, account.current)
  else
    hold(account, id, due, amount)
  end
  save(account)
end
store({state = HELD, output = output, due = due, demands = ARGV[2]}, now)
return granted(output, found)
