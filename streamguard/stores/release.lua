-- Give the whole hold back. The id is remembered as over, also when it was unknown, lest its
-- reserve arrive later; unless the caller means to ask again (forget).
-- KEYS: record, then account and holds of each demand.
-- ARGV: packed {now or false, id, demands, forget}.
local given, id, demands, forget = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local record = load(now)
local found = open_all(demands, id, now)
if not found then return off_table(now) end
if record and record.live then
  for _, account in ipairs(found) do give_back(account, id, account.entry, now) end
end
save_all(found)
if forget then
  redis.call('DEL', KEYS[1])
elseif not record or record.state == HELD then
  finish(record or {output = 0, demands = ''}, now)
end
return cmsgpack.pack({'balances', balances(found)})
