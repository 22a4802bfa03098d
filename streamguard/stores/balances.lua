-- The accounts as they stand.
-- KEYS: unused record, then account and holds of each demand.
-- ARGV: packed {now or false, unused id, demands}.
local given, _, demands = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local found = open_all(demands, '', now)
if not found then return off_table(now) end
save_all(found)
return cmsgpack.pack({'balances', balances(found)})
