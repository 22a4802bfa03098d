-- Hold g * rate more for the largest g in least..want; renews. A repeat (the reservation's
-- output is no longer what the caller knows) answers what was added before.
-- KEYS: record, then account and holds of each demand.
-- ARGV: packed {now or false, id, demands, ttl, want, least, known output}.
local given, id, demands, ttl, want, least, output = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local record = load(now)
local found = open_all(demands, id, now)
if not found then return off_table(now) end
if not record or not record.live or not all_hold(found) then
  save_all(found)
  return nothing()
end
if record.output ~= output then
  save_all(found)
  return granted(record.output - output, found)
end
local fixed = {}
for i in ipairs(demands) do fixed[i] = 0 end
local more = fit(found, fixed, want, least)
if not more then
  save_all(found)
  return refuse(found, fixed, least)
end
record.output, record.due = record.output + more, now + ttl
for _, account in ipairs(found) do
  local demand = account.demand
  if not up_front(demand) then
    account.held = account.held + more * demand[3]
    account.entry = whole(demand[2] + record.output * demand[3])
    account.written = 'h' .. id
  end
  account.earliest = math.min(account.earliest or record.due, record.due)
  redis.call('ZADD', account.holds, whole(record.due), id)
  save(account)
end
store(record, now)
return granted(more, found)
