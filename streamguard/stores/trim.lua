-- Hold no more than an output of g: what a Redis Cluster's other slots had room for.
-- KEYS: record, then account and holds of each demand.
-- ARGV: packed {now or false, id, demands, g}.
local given, id, demands, output = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local record = load(now)
local found = open_all(demands, id, now)
if not found then return off_table(now) end
if record and record.live and record.output > output and all_hold(found) then
  for _, account in ipairs(found) do
    local demand = account.demand
    if not up_front(demand) then
      account.held = account.held - (record.output - output) * demand[3]
      account.entry = whole(demand[2] + output * demand[3])
      account.written = 'h' .. id
    end
  end
  record.output = output
  store(record, now)
end
save_all(found)
return granted(output, found)
